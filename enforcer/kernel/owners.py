"""Which processes hold which sockets, from /proc/PID/fd: the guarded server's own, its descendants, and what listens in their hands.

Needs CAP_SYS_PTRACE (or the same uid): it runs in the helper. Numbers of processes are used again; whoever acts on one checks again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
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


class Census:
    """Processes as of the last look: the parent and the cgroup of each, and which of them hold one of some sockets.

    inodes: of those sockets. A process is looked at once, when it is new; who is known to hold one, each time.
    """

    def __init__(self, inodes: frozenset[int]) -> None:
        self._inodes = inodes
        self._known: dict[int, tuple[int | None, str]] = {}
        self._holders: set[int] = set()

    def look(self) -> None:
        """At whom was added since. What has been moved to another cgroup or handed a socket meanwhile only a new census shows."""
        everybody = frozenset(processes())
        for pid in self._known.keys() - everybody:
            del self._known[pid]
        fresh = everybody - self._known.keys()
        self._known.update({pid: (_parent(pid), _cgroup(pid)) for pid in fresh})
        self._holders = {pid for pid in fresh | (self._holders & everybody) if not self._inodes.isdisjoint(sockets_of(pid))}

    def family(self, ignored: frozenset[int] = frozenset()) -> frozenset[int]:
        """The holders, all their descendants, and what else is in their cgroups, but for the root cgroup, where everything may be.

        ignored: are none of them. Process 1 is no holder: it holds sockets for others.
        """
        found = self._holders - ignored - {1}
        ours = {self._known[pid][1] for pid in found if pid in self._known} - {"", "/"}
        mine = _cgroup(os.getpid())
        found |= {pid for pid, (_, group) in self._known.items() if group in ours and group != mine}
        changed = True
        while changed:
            more = {pid for pid, (parent, _) in self._known.items() if parent in found and pid not in found}
            changed = bool(more)
            found |= more
        return frozenset(found - ignored)


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
