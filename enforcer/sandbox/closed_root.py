"""A twin's root in which no Unix socket of the host can be reached: the same files through overlayfs (filesystems/overlayfs.rst).

`--host-uds=open`, which a twin needs for its copy of a database, opens every socket that its root shows. Through an overlay a socket is another inode than
the one that its owner listens on, so that a connection to it is refused (ECONNREFUSED), as the kernel looks sockets up by inode (net/unix, `unix_find_bsd`).

An overlay does not see what is mounted below its lower folder, and would show what such a mount covers: each mount is given anew, folders as overlays.
Where that cannot be (two overlays over each other are the most there may be; a mount that has gone meanwhile), the twin sees an empty folder.
"""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath

from enforcer.privilege import libc

_KERNELS = frozenset(
    {"proc", "sysfs", "devtmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "bpf", "tracefs", "debugfs", "securityfs", "pstore", "nsfs", "fusectl"}
)
"""File systems of the kernel's own, of which a twin gets nothing."""


def close(root: str, at: Path, nothing: Path, hidden: tuple[str, ...]) -> None:
    """Show `root` at the folder `at`, read-only. nothing: a folder for an empty file system. hidden: what the twin sees empty anyway. OSError."""
    for folder in (at, nothing):
        folder.mkdir(exist_ok=True)
    libc.mount("tmpfs", str(nothing), "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "size=4k,mode=0700")
    below = _below(root, at.parent)
    _overlay(root, at, nothing)
    for place, kind in below:
        inside = place if root == "/" else place.removeprefix(root.rstrip("/"))
        target = at / inside.lstrip("/")
        if any(PurePosixPath(inside).is_relative_to(path) for path in hidden) or not target.exists():
            continue
        try:
            mode = Path(place).stat().st_mode
        except FileNotFoundError:  # gone, and nothing is under it
            continue
        if stat.S_ISDIR(mode) and kind in _KERNELS:
            continue
        if stat.S_ISDIR(mode):
            try:
                _overlay(place, target, nothing)
            except OSError:
                libc.mount("tmpfs", str(target), "tmpfs", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_RDONLY, "size=4k,mode=0755")
        elif stat.S_ISREG(mode) or stat.S_ISCHR(mode):  # of the latter /dev/null, which covers a file
            libc.mount(place, str(target), None, libc.MS_BIND)
        else:
            raise OSError(f"what is mounted at {place} cannot be shown to a twin")


def _overlay(lower: str, target: Path, nothing: Path) -> None:
    if any(char in lower for char in ",:\\"):
        raise OSError(f"{lower} has a letter that overlayfs takes for its own")
    libc.mount("overlay", str(target), "overlay", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_RDONLY, f"lowerdir={nothing}:{lower}")


def _below(root: str, own: Path) -> list[tuple[str, str]]:
    """What is mounted below a folder, and its kind, outer before inner, later before earlier of one place; but what is below `own` (proc_pid_mountinfo(5))."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        place = fields[4].encode().decode("unicode_escape")
        if place not in ("/", root) and PurePosixPath(place).is_relative_to(root) and not PurePosixPath(place).is_relative_to(own.parent):
            found[place] = fields[fields.index("-") + 1]
    return sorted(found.items(), key=lambda each: len(PurePosixPath(each[0]).parts))
