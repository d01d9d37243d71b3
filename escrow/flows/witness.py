"""The witness: what the taps saw on the guarded ports must be what the gate released.

Pure. Notes come from the gate (`note`), facts from the taps (`saw`, `linked`, …), in any order of the two; outcomes are `Bypass` and `Unsure`.

The gate has two kinds of connections, and in each one direction is its own word:

    accepted   a client's: what goes to the client must have been released for it
    dialed     the gate's own, to the server: what goes to the server must have been let through

Anything else that carries bytes on a guarded port is a bypass, whatever it says. A message is known by its digest and counted: sent twice
and released once is a bypass, too. Each place where bytes are seen (the socket filter, each TLS object) is counted for itself, since one
message passes several. What waits for its note or its connection is given `grace_ns`, measured on the taps' own clock, after everything
recorded before was read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field, replace

from escrow.events import Connection, Direction, Linked, Lost, TlsObject, Unlinked
from escrow.flows.digest import digest
from escrow.flows.hole import ENDED
from escrow.flows.notes import Accepted, Closed, Dialed, Note, Released
from escrow.flows.outcome import Bypass, Outcome, Unsure, Why
from escrow.flows.unit import Source, Unit, UnitKind


@dataclass(frozen=True, slots=True)
class Windows:
    """Bounds. remembered: releases of one connection that are kept. connections: of the gate's that are kept. waiting: units without a note.
    closed_ns: how long a closed connection is remembered: the taps may be behind."""

    grace_ns: int = 2_000_000_000
    closed_ns: int = 10_000_000_000
    remembered: int = 4096
    connections: int = 16384
    waiting: int = 16384


@dataclass(slots=True)
class Tally:
    """Since the start. witnessed: messages seen as released. opaque: connections of which only the ends are witnessed."""

    noted: int = 0
    witnessed: int = 0
    bypasses: int = 0
    unsure: int = 0
    opaque: int = 0
    lost_records: int = 0


@dataclass(slots=True)
class _Known:
    """A connection of the gate's. released: how often each digest was; seen: how often, by where."""

    word: Direction
    opaque: bool
    released: dict[bytes, int] = field(default_factory=dict)
    seen: dict[Source, dict[bytes, int]] = field(default_factory=dict)
    forgot: bool = False
    closed_ns: int | None = None


class Witness:
    """See the module. ports: the guarded ones. addresses: the guarded machine's own, None for any, kept true like `servers`. Take what `out` has.

    servers: ids of the server's processes, kept true by whoever knows: what their TLS objects serve is guarded on every port.
    """

    def __init__(self, ports: frozenset[int], addresses: Container[str] | None = None, windows: Windows | None = None) -> None:
        self._ports, self.addresses = ports, addresses
        self.servers: frozenset[int] = frozenset()
        self._windows = windows or Windows()
        self.tally = Tally()
        self.out: list[Outcome] = []
        self._known: dict[Connection, _Known] = {}
        self._links: dict[TlsObject, tuple[Connection, bool] | None] = {}
        """Of TLS objects: their connection and whether they serve; None for those that will never be linked."""
        self._waiting: deque[tuple[int, Unit, bytes]] = deque()
        """Units that are not witnessed yet, by the time at which that becomes a verdict."""
        self._told: dict[Source, None] = {}
        """Flows that are a bypass as such, told once."""
        self._gone: deque[tuple[int, TlsObject]] = deque()
        """TLS objects that ended, and until when they are remembered."""
        self._now_ns = 0

    # --- the gate ---

    def note(self, note: Note) -> None:
        """Something that the gate did, or is about to do."""
        match note:
            case Accepted(connection, opaque, before):
                self._learn(connection, Direction.TO_CLIENT, opaque, before)
            case Dialed(connection, opaque, before):
                self._learn(connection, Direction.TO_SERVER, opaque, before)
            case Closed(connection):
                if (known := self._known.get(connection)) is not None:
                    known.closed_ns = self._now_ns
            case Released(sum, connection, direction):
                self.tally.noted += 1
                known = self._known.get(connection)
                if known is None or known.word is not direction:
                    return  # a note of nothing that could be seen
                known.released[sum] = known.released.get(sum, 0) + 1
                if len(known.released) > self._windows.remembered:
                    self._forget(known)

    # --- the taps ---

    def linked(self, link: Linked) -> None:
        """A TLS object's connection is known."""
        self._links[link.object] = (link.connection, link.serves)

    def unlinked(self, event: Unlinked) -> None:
        self._links[event.object] = None

    def ended(self, object: TlsObject, time_ns: int) -> None:
        """A TLS object is no more; what was seen of it may still wait for its link or its note."""
        self._gone.append((time_ns + 2 * self._windows.grace_ns, object))

    def lost(self, event: Lost) -> None:
        """Records of the taps were lost: what they carried may have passed the gate by."""
        self.tally.lost_records += event.records
        self._unsure(Unsure(Why.LOST, None, f"{event.source}: {event.reason}", event.records))

    def saw(self, unit: Unit) -> None:
        """A unit came out of the flows."""
        self._now_ns = max(self._now_ns, unit.time_ns)
        if unit.kind is UnitKind.STREAM_END and unit.complete:
            return
        sum = digest(unit.raw) if unit.raw and unit.complete else b""
        if not self._judged(unit, sum, last=False):
            self._waiting.append((unit.time_ns + self._windows.grace_ns, unit, sum))
            if len(self._waiting) > self._windows.waiting:
                _, unit, sum = self._waiting.popleft()
                self._judged(unit, sum, last=True)

    def tick(self, now_ns: int) -> None:
        """Time has passed, and everything that was recorded before was given. Notes may have come for what waits."""
        self._now_ns = max(self._now_ns, now_ns)
        left: deque[tuple[int, Unit, bytes]] = deque()
        while self._waiting:
            until_ns, unit, sum = self._waiting.popleft()
            if not self._judged(unit, sum, last=now_ns >= until_ns):
                left.append((until_ns, unit, sum))
        self._waiting = left
        while self._gone and (self._gone[0][0] <= now_ns or len(self._gone) > self._windows.connections):
            _, object = self._gone.popleft()
            self._links.pop(object, None)
            self._told.pop(object, None)
            for known in self._known.values():
                known.seen.pop(object, None)
        gone = [c for c, known in self._known.items() if known.closed_ns is not None and now_ns - known.closed_ns > self._windows.closed_ns]
        for connection in gone:
            del self._known[connection]
            self._told.pop(connection, None)

    # ---

    def _learn(self, connection: Connection, word: Direction, opaque: bool, before: bool) -> None:
        known = self._known.pop(connection, None)
        if known is not None and known.word is word:
            known.closed_ns, known.opaque = None, opaque  # the ports are used again; of the earlier one something may still be on its way
        else:
            known = _Known(word, opaque, forgot=before)
        self._known[connection] = known
        self._told.pop(connection, None)
        if len(self._known) > self._windows.connections:
            first = next(iter(self._known))
            victim = next((c for c, each in self._known.items() if each.closed_ns is not None), first)
            del self._known[victim]

    def _forget(self, known: _Known) -> None:
        """The oldest release that was seen goes; where none was, something is forgotten that may still come."""
        for sum in known.released:
            if any(seen.get(sum, 0) >= known.released[sum] for seen in known.seen.values()):
                break
        else:
            sum = next(iter(known.released))
            known.forgot = True
        del known.released[sum]
        for seen in known.seen.values():
            seen.pop(sum, None)

    def _judged(self, unit: Unit, sum: bytes, *, last: bool) -> bool:
        """Whether a unit's outcome is certain. last: it must be."""
        source, connection = unit.source, unit.connection
        if isinstance(source, TlsObject):
            ours = source.process.pid in self.servers
            if source not in self._links and not last:
                return False
            link = self._links.get(source)
            if link is None:
                if ours:
                    self._once(source, Unsure(Why.UNLINKED, unit))
                return True
            connection, serves = link
            if unit.linked is None:
                unit = replace(unit, linked=connection)
            if not (ours and serves) and not self._guarded(connection):
                return True  # somebody else's, or the server itself asks elsewhere
        elif connection is None or not self._guarded(connection):
            return True
        known = self._known.get(connection)
        if known is None:
            if last:
                self._once(source, Bypass(Why.UNKNOWN_CONNECTION, unit, sum))
            return last
        if unit.kind is UnitKind.OPAQUE:
            if known.opaque:
                self.tally.opaque += unit.direction is known.word
            elif unit.direction is known.word:  # what the other end tries is answered by the gate
                self._once(source, Bypass(Why.OPAQUE, unit, sum))
            return True
        if unit.direction is not known.word or unit.kind is UnitKind.FIRST:
            return True
        if not unit.complete:
            if unit.kind is UnitKind.STREAM_END and unit.why == ENDED:  # a client left; each event was seen for itself
                return True
            self._unsure(Unsure(Why.INCOMPLETE, unit, unit.why))
            return True
        seen = known.seen.setdefault(source, {})
        count = seen.get(sum, 0)
        if count < known.released.get(sum, 0):
            seen[sum] = count + 1
            self.tally.witnessed += 1
            return True
        if last and known.forgot:
            self._unsure(Unsure(Why.FORGOTTEN, unit))
        elif last:
            self.tally.bypasses += 1
            self.out.append(Bypass(Why.NOT_RELEASED, unit, sum))
        return last

    def _guarded(self, connection: Connection) -> bool:
        server = connection.server
        return server.port in self._ports and (self.addresses is None or server.address in self.addresses)

    def _once(self, source: Source, outcome: Outcome) -> None:
        """Tell something about a whole flow."""
        if source in self._told:
            return
        self._told[source] = None
        if len(self._told) > self._windows.connections:
            del self._told[next(iter(self._told))]
        if isinstance(outcome, Bypass):
            self.tally.bypasses += 1
            self.out.append(outcome)
        else:
            self._unsure(outcome)

    def _unsure(self, outcome: Unsure) -> None:
        self.tally.unsure += 1
        self.out.append(outcome)
