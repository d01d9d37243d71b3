"""Which TLS object speaks on which connection: by ciphertext that a BIO of the object carried and the socket filter saw on the wire.

Neither a descriptor nor a thread's next system call says it (memory BIOs have none), so the bytes themselves do: the first 32 of a piece of
ciphertext, which hold a handshake's random or encrypted bytes, are found on the wire in the direction that they must have gone. One such match
names the connection and which end the process is. An object is linked when two different pieces agree, of one direction or of both; if any two disagree, or
one is seen on more than one connection (somebody replays it), it is unlinked for good. Nothing is concluded from times or lengths.

Both sides are kept for a while, since they come in either order; everything kept is bounded.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import islice

from enforcer.taps.evidence import CipherSeen
from escrow.events import Connection, Direction, Linked, Process, ProcessEnded, TcpSlice, TlsClosed, TlsDirection, TlsEnd, TlsObject, TlsOpened, Unlinked

PREFIX_BYTES = 32
NEEDED = 2
"""Pieces that must agree."""

GRACE_NS = 1_000_000_000
"""How long after an object's end its ciphertext is waited for: the two rings are read one after the other."""

_MOST_OBJECTS = 16384
_MOST_PENDING = 8  # pieces of one object that were not found yet: the kernel gives four of each direction
_KEPT_SLICES = 2048
_SEARCHED = 256  # slices that are searched within for a piece that begins none of them
_SOUGHT = 64  # pieces, the newest, that are sought within a new slice; any number are found at its start
_MOST_CONNECTIONS = 16384
_TLS_RECORDS = frozenset(bytes([kind]) for kind in range(20, 25))  # RFC 8446, 5.1: content types, with heartbeat
_RECORD_HEAD = 5


@dataclass(slots=True)
class _State:
    """Of one object. matched: the pieces found, each with its direction."""

    pending: list[tuple[TlsDirection, bytes]] = field(default_factory=list)
    matched: set[tuple[TlsDirection, bytes]] = field(default_factory=set)
    claim: tuple[Connection, bool] | None = None
    linked: bool = False
    given_up: bool = False
    closed_ns: int | None = None


@dataclass(frozen=True, slots=True)
class _Sight:
    connection: Connection
    direction: Direction


class Linker:
    def __init__(self) -> None:
        self._objects: OrderedDict[TlsObject, _State] = OrderedDict()
        self._recent: deque[TcpSlice] = deque(maxlen=_KEPT_SLICES)
        self._starts: dict[bytes, set[_Sight]] = {}
        self._waiting: dict[bytes, set[TlsObject]] = {}
        self._processes: dict[Process, set[TlsObject]] = {}
        self._closing: deque[TlsObject] = deque()
        self._encrypted: OrderedDict[Connection, None] = OrderedDict()

    def opened(self, event: TlsOpened) -> None:
        self._state(event.object)

    def saw_cipher(self, seen: CipherSeen) -> list[Linked | Unlinked]:
        if len(seen.prefix) < PREFIX_BYTES:
            return []
        state = self._state(seen.object)
        prefix = seen.prefix[:PREFIX_BYTES]
        if state.given_up or (seen.direction, prefix) in state.matched:
            return []
        sights = self._find(prefix)
        if sights:
            return self._match(seen.object, state, seen.direction, prefix, sights, seen.time_ns)
        if len(state.pending) < _MOST_PENDING:
            state.pending.append((seen.direction, prefix))
            self._waiting.setdefault(prefix, set()).add(seen.object)
        return []

    def saw_wire(self, piece: TcpSlice) -> list[Linked | Unlinked]:
        """A slice of a connection that has carried a TLS record is kept; any other is passed over."""
        if piece.data[:1] in _TLS_RECORDS and piece.data[1:2] == b"\x03":
            self._encrypted[piece.connection] = None
            if len(self._encrypted) > _MOST_CONNECTIONS:
                self._encrypted.popitem(last=False)
        elif piece.connection not in self._encrypted:
            return []
        old = self._recent[0] if len(self._recent) == _KEPT_SLICES else None
        if old is not None:
            self._forget(old)
        self._recent.append(piece)
        sight = _Sight(piece.connection, piece.direction)
        events: list[Linked | Unlinked] = []
        begun = _starts(piece.data)
        for start in begun:
            self._starts.setdefault(start, set()).add(sight)
        found = {start for start in begun if start in self._waiting}
        found.update(prefix for prefix in islice(reversed(self._waiting), _SOUGHT) if prefix in piece.data)
        for prefix in found:
            for about in list(self._waiting.get(prefix, ())):
                state = self._objects[about]
                for direction in [way for way, kept in state.pending if kept == prefix]:
                    events += self._match(about, state, direction, prefix, self._find(prefix) | {sight}, piece.time_ns)
        return events

    def closed(self, event: TlsClosed) -> None:
        """The object will carry no more; `expire` takes it out."""
        state = self._objects.get(event.object)
        if state is not None and event.how is not TlsEnd.SHUTDOWN and state.closed_ns is None:
            state.closed_ns = event.time_ns
            self._closing.append(event.object)

    def ended(self, event: ProcessEnded) -> list[TlsClosed]:
        """The objects that a process took with it."""
        gone = [about for about in self._processes.pop(event.process, ()) if about in self._objects]
        events = [TlsClosed(about, event.time_ns, TlsEnd.PROCESS_ENDED) for about in gone if self._objects[about].closed_ns is None]
        for each in events:
            self.closed(each)
        return events

    def expire(self, now_ns: int) -> list[Unlinked]:
        """Take out objects that ended a while ago; one that was never linked says so."""
        events: list[Unlinked] = []
        while self._closing:
            about = self._closing[0]
            state = self._objects.get(about)
            if state is not None and state.closed_ns is not None and now_ns - state.closed_ns < GRACE_NS:
                break
            self._closing.popleft()
            if state is not None:
                self._drop(about)
                if not (state.linked or state.given_up):
                    events.append(Unlinked(about, now_ns, "its ciphertext was not seen on a watched port before it ended"))
        return events

    def _state(self, about: TlsObject) -> _State:
        state = self._objects.get(about)
        if state is None:
            if len(self._objects) >= _MOST_OBJECTS:
                self._drop(next(iter(self._objects)))
            state = self._objects[about] = _State()
            self._processes.setdefault(about.process, set()).add(about)
        return state

    def _drop(self, about: TlsObject) -> None:
        self._drop_pending(about, self._objects.pop(about))
        others = self._processes.get(about.process)
        if others is not None:
            others.discard(about)
            if not others:
                del self._processes[about.process]

    def _match(self, about: TlsObject, state: _State, way: TlsDirection, prefix: bytes, sights: set[_Sight], time_ns: int) -> list[Linked | Unlinked]:
        self._drop_pending(about, state, prefix)
        if state.given_up:
            return []
        if len({sight.connection for sight in sights}) > 1 or len(sights) > 1:
            return self._give_up(about, state, time_ns, "the same ciphertext was seen on more than one connection")
        sight = next(iter(sights))
        # What the process read came to it: it is the server's end exactly if those bytes went to the server.
        serves = (sight.direction is Direction.TO_SERVER) == (way is TlsDirection.READ)
        claim = (sight.connection, serves)
        if state.claim is not None and state.claim != claim:
            return self._give_up(about, state, time_ns, "its ciphertext was seen on two connections")
        state.claim = claim
        state.matched.add((way, prefix))
        if state.linked or len(state.matched) < NEEDED:
            return []
        state.linked = True
        both = len({direction for direction, _prefix in state.matched}) == 2
        by = "ciphertext in both directions" if both else f"two pieces of ciphertext that it {'read' if way is TlsDirection.READ else 'wrote'}"
        return [Linked(about, sight.connection, serves, time_ns, by)]

    def _give_up(self, about: TlsObject, state: _State, time_ns: int, why: str) -> list[Linked | Unlinked]:
        state.given_up = True
        self._drop_pending(about, state)
        return [Unlinked(about, time_ns, why)]

    def _drop_pending(self, about: TlsObject, state: _State, only: bytes | None = None) -> None:
        for prefix in {kept for _way, kept in state.pending if only is None or kept == only}:
            others = self._waiting.get(prefix)
            if others is not None:
                others.discard(about)
                if not others:
                    del self._waiting[prefix]
        state.pending = [] if only is None else [each for each in state.pending if each[1] != only]

    def _find(self, prefix: bytes) -> set[_Sight]:
        found = self._starts.get(prefix)
        if found:
            return set(found)
        slices = list(self._recent)[-_SEARCHED:]
        return {_Sight(piece.connection, piece.direction) for piece in slices if prefix in piece.data}

    def _forget(self, piece: TcpSlice) -> None:
        sight = _Sight(piece.connection, piece.direction)
        for start in _starts(piece.data):
            sights = self._starts.get(start)
            if sights is not None:
                sights.discard(sight)
                if not sights:
                    del self._starts[start]


def _starts(data: bytes) -> list[bytes]:
    """Where a BIO's piece usually begins: with the slice, or behind the head of the record that the slice begins with."""
    starts = [data[:PREFIX_BYTES]] if len(data) >= PREFIX_BYTES else []
    if len(data) >= PREFIX_BYTES + _RECORD_HEAD and data[:1] in _TLS_RECORDS:
        starts.append(data[_RECORD_HEAD : _RECORD_HEAD + PREFIX_BYTES])
    return starts
