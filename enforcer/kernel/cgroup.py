"""Where cgroup2 is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified on machines with hybrid cgroups. Found, not assumed."""

from __future__ import annotations

from pathlib import Path


def mount_point(mounts: str) -> Path | None:
    """The first cgroup2 in the text of /proc/self/mounts; None where there is none."""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[2] == "cgroup2":
            return Path(fields[1])
    return None
