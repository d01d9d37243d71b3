"""Which processes hold which sockets, from /proc/PID/fd: the guarded server's own, its descendants, and what listens in their hands.

Needs CAP_SYS_PTRACE (or the same uid): it runs in the helper. Numbers of processes are used again; whoever acts on one checks again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")
_MOST_DESCRIPTORS = 65536


def processes() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdecimal()]


def sockets_of(pid: int) -> Iterator[int]:
    """Inodes of the sockets that a process has open; nothing where it has ended or may not be looked at."""
    try:
        with os.scandir(_PROC / str(pid) / "fd") as entries:
            for count, entry in enumerate(entries):
                if count >= _MOST_DESCRIPTORS:
                    return
                try:
                    target = os.readlink(entry.path)
                except OSError:
                    continue
                if target.startswith("socket:["):
                    yield int(target[8:-1])
    except OSError:
        return


def holders(inodes: Iterable[int], among: Iterable[int]) -> set[int]:
    """Those processes that hold any of these sockets."""
    wanted = frozenset(inodes)
    return {pid for pid in among if any(inode in wanted for inode in sockets_of(pid))}


def with_kin(roots: set[int]) -> set[int]:
    """These processes, all their descendants, and what else is in their cgroups, but for the root cgroup, where everything may be."""
    parents: dict[int, int] = {}
    groups: dict[int, str] = {}
    for pid in processes():
        parent = _parent(pid)
        if parent is not None:
            parents[pid] = parent
            groups[pid] = _cgroup(pid)
    ours = {groups.get(pid, "") for pid in roots} - {"", "/"}
    mine = _cgroup(os.getpid())
    found = roots | {pid for pid, group in groups.items() if group in ours and group != mine}
    changed = True
    while changed:
        more = {pid for pid, parent in parents.items() if parent in found and pid not in found}
        changed = bool(more)
        found |= more
    return found


def _parent(pid: int) -> int | None:
    """From /proc/PID/stat, behind the name, which may hold anything (proc(5))."""
    try:
        return int((_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _cgroup(pid: int) -> str:
    """Its cgroup2; "" where that cannot be read."""
    try:
        lines = (_PROC / str(pid) / "cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line[3:] for line in lines if line.startswith("0::")), "")
