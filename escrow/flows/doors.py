"""Open doors: listening sockets of the server's processes other than the guarded one, where no gate stands.

Pure. Snapshots of the kernel's socket tables come in; what opened, was used and was closed since the last one goes out. A connection that
begins and ends between two snapshots is not seen here (the taps see those on guarded ports).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Family(Enum):
    TCP = "tcp"
    UNIX = "unix"


@dataclass(frozen=True, slots=True)
class Door:
    """A listening socket. inode: of the socket, for as long as it lives. address: `127.0.0.1:9000`, `[::1]:9000`, a path, `@abstract`, or ""
    for a Unix socket without a name. pid: of one process that holds it."""

    family: Family
    inode: int
    address: str
    pid: int


@dataclass(frozen=True, slots=True)
class Visit:
    """A connection on a door. key: what tells it from others as long as it lives. peer: who is at the other end, as far as the kernel says."""

    door: int
    key: int
    peer: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All doors and the connections on them, at one time."""

    doors: tuple[Door, ...]
    visits: tuple[Visit, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    door: Door


@dataclass(frozen=True, slots=True)
class Used:
    """Somebody is connected past the gate: a bypass."""

    door: Door
    peer: str


@dataclass(frozen=True, slots=True)
class Shut:
    door: Door


Change = Opened | Used | Shut


class Doors:
    """What changes from snapshot to snapshot. open: the doors of the last one."""

    def __init__(self) -> None:
        self.open: dict[int, Door] = {}
        self._visits: frozenset[Visit] = frozenset()

    def see(self, snapshot: Snapshot) -> list[Change]:
        """Take a snapshot."""
        now = {door.inode: door for door in snapshot.doors}
        changes: list[Change] = [Opened(door) for door in now.values() if door.inode not in self.open]
        changes += _used(snapshot.visits, self._visits, now)
        changes += [Shut(door) for inode, door in self.open.items() if inode not in now]
        self.open, self._visits = now, frozenset(snapshot.visits)
        return changes


def _used(visits: Iterable[Visit], before: frozenset[Visit], doors: dict[int, Door]) -> list[Change]:
    return [Used(doors[visit.door], visit.peer) for visit in visits if visit not in before and visit.door in doors]
