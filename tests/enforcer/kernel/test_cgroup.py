from __future__ import annotations

from pathlib import Path

from enforcer.kernel.cgroup import mount_point

HYBRID = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"


def test_cgroup2_is_found_where_it_is() -> None:
    assert mount_point(HYBRID) == Path("/sys/fs/cgroup/unified")
    assert mount_point("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n") == Path("/sys/fs/cgroup")
    assert mount_point("proc /proc proc rw 0 0\n") is None
