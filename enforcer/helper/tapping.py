"""The process of the taps: loads them, attaches them to what is there and to what comes, and watches the server's doors.

It reads no byte of traffic: the rings' descriptors go to the daemon. Loading is done before its rights are dropped (`prepare`); what is left
afterwards attaches probes and looks at /proc. Whatever cannot be had is told, and the rest goes on.
"""

from __future__ import annotations

import ipaddress
import os
import re
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from enforcer.helper import wire
from enforcer.helper.sights import (
    MOST_ADDRESSES,
    MOST_DOORS,
    MOST_NAMES,
    MOST_SERVERS,
    MOST_UNCOVERED,
    MOST_VISITS,
    AddressesSeen,
    DoorSeen,
    DoorsHidden,
    DoorsSeen,
    Named,
    NamesSeen,
    Sight,
    Source,
    TapAbsent,
    TapAttached,
    TapPlan,
    TargetsSeen,
    VisitSeen,
)
from enforcer.kernel import sockdiag
from enforcer.kernel.doors import DoorWatch
from enforcer.kernel.errors import KernelError
from enforcer.taps.loading import Loaded
from enforcer.taps.watch import Scope, TlsTaps
from enforcer.taps.wire import WireTap
from escrow.flows.doors import Family, Snapshot

LOOK_S = 0.25
_PAUSE_S = 0.02
_PROC = Path("/proc")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_KNOWN_NAMES = 65536
_NOBODY = (1 << 31) - 1
"""No process has this number: the kernel gives none above 2^22 (proc(5), pid_max)."""


def prepare(plan: TapPlan, channel: socket.socket) -> Callable[[], int | None]:
    """As root, in the guarded namespace."""
    os.nice(5)  # the gate goes before
    return _Tapping(plan, channel).run


class _Tapping:
    def __init__(self, plan: TapPlan, channel: socket.socket) -> None:
        self._plan, self._channel = plan, channel
        self._helper = os.getppid()
        self._own: frozenset[int] = frozenset()
        self._servers: frozenset[int] = frozenset()
        self._doors = DoorWatch(sockdiag.open_socket(), plan.ports) if plan.ports else None
        self._told: dict[str, Sight] = {}
        self._named: set[int] = set()
        self._scope: Scope | None = None
        self._unprobed = 0
        self._wire: WireTap | None = None
        self._tls: TlsTaps | None = None
        self._why = {"tap": "no port is watched", "tls": ""}
        if plan.ports:
            try:
                self._wire = WireTap(plan.ports, plan.loader)
            except (KernelError, OSError) as error:
                self._why["tap"] = str(error)
        try:
            self._tls = TlsTaps(self._wanted(), plan.loader)
        except (KernelError, OSError) as error:
            self._why["tls"] = str(error)

    def run(self) -> int:
        """Until the daemon is gone."""
        self._channel.setblocking(False)
        self._introduce("tap", None if self._wire is None else self._wire.loaded)
        self._introduce("tls", None if self._tls is None else self._tls.loaded)
        waiting = select.poll()
        waiting.register(self._channel, select.POLLIN)
        for fd in self._tls.mappings.fds if self._tls is not None else ():
            waiting.register(fd, select.POLLIN)
        self._look()
        if self._tls is not None:
            self._tls.scan()
        looked_at = 0.0
        while True:
            ready = waiting.poll(max(0.0, looked_at + LOOK_S - time.monotonic()) * 1000)
            if any(fd == self._channel.fileno() for fd, _ in ready):  # the daemon says nothing: this is its end
                if self._tls is not None:
                    self._tls.close()
                return 0
            if ready:
                self._follow()
            if time.monotonic() - looked_at >= LOOK_S:
                looked_at = time.monotonic()
                self._look()
            elif ready:
                time.sleep(_PAUSE_S)  # a machine that starts many programs costs us so much, and not more

    def _introduce(self, source: Source, loaded: Loaded | None) -> None:
        if loaded is None:
            wire.send(self._channel, TapAbsent(source=source, why=_shown(self._why[source], 512)))
        else:
            attached = TapAttached(source=source, ring_bytes=loaded.ring_bytes)
            wire.send(self._channel, attached, loaded.maps[f"{source}_ring"], loaded.maps[f"{source}_counters"])

    # --- again and again ---

    def _look(self) -> None:
        """At the doors, at who the server's processes are, and at what is probed."""
        self._own = _family(self._helper)
        self._tell("addresses", _addresses())
        if self._doors is not None:
            self._look_at_doors(self._doors)
        if self._tls is not None:
            self._restrict(self._tls)
            self._tell("targets", self._targets(self._tls))
        self._tell_names()

    def _look_at_doors(self, doors: DoorWatch) -> None:
        try:
            seen = doors.snapshot(self._own)
        except (OSError, KernelError) as error:
            self._tell("doors", DoorsHidden(why=_shown(f"the socket tables cannot be read: {error}", 512)))
            return
        self._servers = doors.servers
        if not self._plan.guards:
            seen = Snapshot((), ())
        elif self._wire is not None:  # what TLS is served there can then be linked to its connection
            self._wire.watch(self._plan.ports | _ports(seen))
        self._tell("doors", _doors_seen(seen, doors.servers))

    def _follow(self) -> None:
        if self._tls is None:
            return
        followed = self._tls.follow()
        watched = self._watched()
        for each in followed.fresh:
            self._unprobed += len(each.pids if watched is None else each.pids & watched)

    def _restrict(self, tls: TlsTaps) -> None:
        wanted = self._wanted()
        if wanted != self._scope:
            tls.restrict(wanted)
            self._scope = wanted

    def _wanted(self) -> Scope:
        """Nobody's plaintext rather than everybody's, where the server's processes are not known."""
        scope = self._plan.scope
        if scope is None:
            return Scope(pids=(self._servers - self._own) or frozenset({_NOBODY}), ignored=self._own)
        return Scope(pids=scope.pids, cgroup=scope.cgroup, cgroup_level=scope.cgroup_level, ignored=self._own)

    def _watched(self) -> frozenset[int] | None:
        """The processes whose plaintext is copied, where that is a list; None: many."""
        scope = self._wanted()
        return scope.pids or None

    def _targets(self, tls: TlsTaps) -> TargetsSeen:
        tls.forget_ended()
        watched = self._watched()
        uncovered = [
            _shown(f"{each.path}: {why}", 512)
            for each in tls.targets.values()
            if watched is None or not watched.isdisjoint(each.pids)
            for why in each.uncovered
        ]
        probed = sum(1 for each in tls.targets.values() if each.links)
        return TargetsSeen(probed=probed, uncovered=tuple(uncovered[:MOST_UNCOVERED]), full=tls.full, unprobed=self._unprobed)

    def _tell_names(self) -> None:
        known = set(self._servers)
        if self._tls is not None and self._plan.scope is not None:
            known.update(pid for each in self._tls.targets.values() for pid in each.pids)
        if len(self._named) > _KNOWN_NAMES:
            self._named.clear()
        fresh = [pid for pid in sorted(known - self._named)][:MOST_NAMES]
        names = tuple(named for pid in fresh if (named := _name(pid)) is not None)
        if not names or self._sent(NamesSeen(names=names)):
            self._named.update(fresh)

    # --- telling ---

    def _tell(self, about: str, sight: Sight) -> None:
        """Tell what has changed. What the daemon has no room for now is told at the next look, as it is then."""
        if self._told.get(about) != sight and self._sent(sight):
            self._told[about] = sight

    def _sent(self, sight: Sight) -> bool:
        try:
            wire.send(self._channel, sight)
        except wire.Malformed:
            return False
        return True


def _doors_seen(seen: Snapshot, servers: frozenset[int]) -> DoorsSeen:
    doors = tuple(DoorSeen(family=each.family.value, inode=each.inode, address=_shown(each.address, 128), pid=each.pid) for each in seen.doors[:MOST_DOORS])
    visits = tuple(VisitSeen(door=each.door, key=each.key, peer=_shown(each.peer, 128)) for each in seen.visits[:MOST_VISITS])
    left_out = len(seen.doors) - len(doors) + len(seen.visits) - len(visits) + max(0, len(servers) - MOST_SERVERS)
    return DoorsSeen(doors=doors, visits=visits, servers=tuple(sorted(servers)[:MOST_SERVERS]), left_out=left_out)


def _ports(seen: Snapshot) -> set[int]:
    return {int(each.address.rpartition(":")[2]) for each in seen.doors[:MOST_DOORS] if each.family is Family.TCP}


def _addresses() -> AddressesSeen:
    """From /proc: those of IPv4 as the routing table has them, with whole networks (127.0.0.0/8), those of IPv6 one by one."""
    networks, last = set(), ""
    with suppress(OSError):
        for line in (_PROC / "self/net/fib_trie").read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[0] == "|--":
                last = words[1]
            elif words[-1] == "LOCAL":
                networks.add(last + words[0])
    with suppress(OSError):
        for line in (_PROC / "self/net/if_inet6").read_text(encoding="ascii").splitlines():
            networks.add(f"{ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))}/128")
    return AddressesSeen(networks=tuple(sorted(networks)) if len(networks) <= MOST_ADDRESSES else None)


def _family(helper: int) -> frozenset[int]:
    """The helper and its children: none of them is the server's, and nobody's plaintext."""
    found = {helper, os.getpid()}
    with suppress(OSError):
        found |= {int(pid) for pid in (_PROC / str(helper) / "task" / str(helper) / "children").read_text(encoding="ascii").split()}
    return frozenset(found)


def _name(pid: int) -> Named | None:
    """None where it has ended."""
    try:
        name = (_PROC / str(pid) / "comm").read_text("utf-8", "replace").rstrip("\n")
        groups = (_PROC / str(pid) / "cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    group = next((line[3:] for line in groups if line.startswith("0::")), "").rpartition("/")[2]
    return Named(pid=pid, name=_shown(name, 128), group=_shown(group, 128))


def _shown(text: str, most: int) -> str:
    """Printable ASCII, whatever was put into a name."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{{{ord(found[0]):x}}}", text)[:most]
