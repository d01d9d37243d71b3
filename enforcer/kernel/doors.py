"""Snapshots of the guarded server's open doors: every listening socket of its processes but the guarded one, and who is connected to them.

    through      a netlink socket of sock_diag, opened in the server's network namespace
    /proc        who holds what: `owners`

Runs in the process of the taps, some times a second. Walking all of /proc is the expensive part: it is done when the guarded sockets change or
nobody is known to hold them, and every `walk_s`. Every `refresh_s` only processes that were added are looked at, and the server's own where the kernel
lists a listening socket that was not placed lately.

Not seen: sockets that the server's processes hold in other network namespaces, UDP, raw and vsock sockets.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

from enforcer.kernel import owners, sockdiag, unixdiag
from enforcer.kernel.sockdiag import LISTEN, Tcp
from escrow.flows.doors import Door, Family, Snapshot, Visit


@dataclass(slots=True)
class _Placed:
    """A listening socket that was placed. pid: of the server's process that holds it; None where none does. at_s: when that was found out."""

    pid: int | None
    at_s: float


class DoorWatch:
    """Takes snapshots. ports: the guarded ones. servers: the server's processes, as of the last snapshot."""

    def __init__(self, through: socket.socket, ports: frozenset[int], refresh_s: float = 0.5, walk_s: float = 5.0) -> None:
        self._through, self._ports, self._refresh_s, self._walk_s = through, ports, refresh_s, walk_s
        self.servers: frozenset[int] = frozenset()
        self._census: owners.Census | None = None
        self._known_at_s = self._walked_at_s = 0.0
        self._guarded: frozenset[int] = frozenset()
        self._placed: dict[int, _Placed] = {}

    def snapshot(self, own: frozenset[int] = frozenset()) -> Snapshot:
        """What is open now. own: our processes, which are never the server's. Raises NetlinkError, TimeoutError."""
        tcp = sockdiag.sockets(self._through)
        unix = unixdiag.sockets(self._through)
        listening = {one.inode: one for one in tcp if one.state == LISTEN and one.inode}
        guarded = frozenset(inode for inode, one in listening.items() if one.local_port in self._ports)
        now_s = time.monotonic()
        if guarded != self._guarded or not self.servers or now_s - self._known_at_s > self._refresh_s:
            if guarded:
                self.servers = self._look(guarded, now_s).family(own)
            self._guarded, self._known_at_s = guarded, now_s
        candidates = {inode: _shown(one) for inode, one in listening.items() if inode not in guarded}
        candidates |= {one.inode: one.name for one in unix if one.listens}
        self._place(frozenset(candidates), now_s)
        doors = tuple(
            Door(Family.TCP if inode in listening else Family.UNIX, inode, candidates[inode], placed.pid)
            for inode, placed in self._placed.items()
            if placed.pid is not None
        )
        return Snapshot(doors, (*_tcp_visits(doors, listening, tcp), *_unix_visits(doors, unix)))

    def _look(self, guarded: frozenset[int], now_s: float) -> owners.Census:
        census = self._census
        if census is None or guarded != self._guarded or not self.servers or now_s - self._walked_at_s > self._walk_s:
            census = self._census = owners.Census(guarded)
            self._walked_at_s = now_s
        census.look()
        return census

    def _place(self, listening: frozenset[int], now_s: float) -> None:
        """Find out which of these are the server's: those not placed yet, and again after a while, since sockets can be handed on."""
        for inode in [inode for inode in self._placed if inode not in listening]:
            del self._placed[inode]
        stale = {inode for inode in listening if inode not in self._placed or now_s - self._placed[inode].at_s > self._refresh_s}
        if not stale:
            return
        held = {inode: pid for pid in self.servers for inode in owners.sockets_of(pid) if inode in stale}
        for inode in stale:
            self._placed[inode] = _Placed(held.get(inode), now_s)


def _shown(one: Tcp) -> str:
    return f"[{one.local}]:{one.local_port}" if one.local.version == 6 else f"{one.local}:{one.local_port}"


def _tcp_visits(doors: tuple[Door, ...], listening: dict[int, Tcp], tcp: list[Tcp]) -> list[Visit]:
    """Connections to the doors' ports: accepted or still in the queue. A socket bound to another address of that port is another door."""
    by_port: dict[int, list[tuple[int, Tcp]]] = {}
    for door in doors:
        if door.family is Family.TCP:
            by_port.setdefault(listening[door.inode].local_port, []).append((door.inode, listening[door.inode]))
    visits = []
    for one in tcp:
        if one.state == LISTEN:
            continue
        for inode, door_socket in by_port.get(one.local_port, ()):
            if door_socket.local.is_unspecified or door_socket.local == one.local:
                visits.append(Visit(inode, hash((one.local.packed, one.remote.packed, one.remote_port)), f"{one.remote}:{one.remote_port}"))
                break
    return visits


def _unix_visits(doors: tuple[Door, ...], unix: list[unixdiag.Unix]) -> list[Visit]:
    """Accepted sockets have their listener's name; those that wait are listed with it."""
    named = {one.name: one.inode for one in unix if one.listens and one.name}
    open_doors = {door.inode for door in doors if door.family is Family.UNIX}
    visits = []
    for one in unix:
        if one.listens and one.inode in open_doors:
            visits += [Visit(one.inode, client, "a local process") for client in one.waiting]
        elif not one.listens and one.name and named.get(one.name) in open_doors:
            visits.append(Visit(named[one.name], one.peer or one.inode, "a local process"))
    return visits
