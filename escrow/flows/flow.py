"""One flow: a TCP connection's two streams, or a TLS object's, and their conversation."""

from __future__ import annotations

from dataclasses import replace

from escrow.events import Connection, Direction, TlsDirection, TlsObject
from escrow.flows.body import Emit
from escrow.flows.bounds import Bounds
from escrow.flows.calls import CallStream
from escrow.flows.conversation import Conversation
from escrow.flows.hole import Chunk
from escrow.flows.http1 import REQUEST, SharedHeads
from escrow.flows.http2 import PREFACE
from escrow.flows.stream import TcpStream
from escrow.flows.unit import Unit

_TO_CLIENT, _TO_SERVER = Direction.TO_CLIENT, Direction.TO_SERVER


class TcpFlow:
    __slots__ = ("connection", "conversation", "key", "to_client", "to_server")

    def __init__(self, connection: Connection, conversation: Conversation, bounds: Bounds) -> None:
        self.connection = self.key = connection
        self.conversation = conversation
        self.to_client, self.to_server = TcpStream(bounds), TcpStream(bounds)

    @property
    def over(self) -> bool:
        """Whether nothing more comes. One end alone may have said so, and the other may still answer."""
        return (self.to_client.ended and self.to_server.ended) or self.to_client.was_reset or self.to_server.was_reset

    @property
    def touched_ns(self) -> int:
        return max(self.to_client.touched_ns, self.to_server.touched_ns)


class TlsFlow:
    __slots__ = ("_emit", "connection", "conversation", "early", "read", "serves", "touched_ns", "write")

    def __init__(self, object: TlsObject, heads: SharedHeads, bounds: Bounds, from_start: bool, emit: Emit) -> None:
        self._emit = emit
        self.conversation = Conversation(object, heads, bounds, self._linked)
        self.read, self.write = CallStream(bounds, from_start=from_start), CallStream(bounds, from_start=from_start)
        self.connection: Connection | None = None
        self.serves: bool | None = None
        self.early: list[tuple[TlsDirection, Chunk, int]] = []
        """What came before it is known which end this is."""
        self.touched_ns = 0

    def _linked(self, unit: Unit) -> None:
        self._emit(unit if self.connection is None else replace(unit, linked=self.connection))

    def stream(self, direction: TlsDirection) -> CallStream:
        return self.read if direction is TlsDirection.READ else self.write

    def direction(self, direction: TlsDirection) -> Direction:
        return _TO_SERVER if (direction is TlsDirection.READ) == self.serves else _TO_CLIENT


def joined(chunks: list[Chunk]) -> list[Chunk]:
    """The same, neighbouring bytes as one."""
    found: list[Chunk] = []
    run: list[bytes] = []
    for chunk in chunks:
        if isinstance(chunk, bytes):
            run.append(chunk)
        else:
            if run:
                found.append(b"".join(run))
                run = []
            found.append(chunk)
    if run:
        found.append(b"".join(run))
    return found


def serves_by(early: list[tuple[TlsDirection, Chunk, int]]) -> bool | None:
    """Which end a TLS object is, by how either direction begins; None where that does not show."""
    for end in TlsDirection:
        chunks = [chunk for each, chunk, _ in early if each is end and isinstance(chunk, bytes)]
        for first in (b"".join(chunks), *chunks):
            if first.startswith(PREFACE[:14]) or REQUEST.match(first):
                return end is TlsDirection.READ
            if first.startswith(b"HTTP/1.") or (len(first) >= 9 and first[3] == 4 and first[5:9] == bytes(4)):
                return end is TlsDirection.WRITE
    return None
