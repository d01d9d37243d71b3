"""The gate's notes as bytes: the daemon writes them as it makes them, the witness's process reads them. Packets of whole records, in order.

    A, D    number, how, length, addresses     a connection accepted, dialed; from here on it is called by its number
    R       number, direction, digest          a message released on it
    C       number                             it was closed
    U       time                               every note made before this time (CLOCK_MONOTONIC, in ns) stands before it

The last one is what makes silence mean something: what was seen is judged only up to the time that the notes have reached.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

from escrow.events import Connection, Direction, Endpoint
from escrow.flows.notes import Accepted, Closed, Dialed, Note, Released

PACKET_BYTES = 32 << 10
"""A packet is closed at this size; none is longer by more than one record."""
MOST_WAITING = 256
"""Packets that wait for the witness's process: 8 MiB, some 200,000 messages."""

_NEW = struct.Struct("=cIBH")
_RELEASED = struct.Struct("=cIB32s")
_CLOSED = struct.Struct("=cI")
_UNTIL = struct.Struct("=cQ")
_OPAQUE, _BEFORE = 1, 2
_LAST_NUMBER = (1 << 32) - 1


class NoteWriter:
    """The daemon's end. Nothing is lost without being known: past `MOST_WAITING` it is `behind`, and to be begun anew.

    What it keeps for that: which connections are open.
    """

    def __init__(self) -> None:
        self._open: dict[Connection, tuple[int, Accepted | Dialed]] = {}
        self._last = 0
        self._writing = True
        self.packets: deque[bytearray] = deque()
        """To be sent in this order, the first one first."""
        self._packet = bytearray()

    @property
    def behind(self) -> bool:
        """Whether more waits than is kept, so that something would have to be left out."""
        return len(self.packets) >= MOST_WAITING

    def note(self, note: Note) -> None:
        """Called for each message: a few microseconds."""
        if type(note) is Released:
            known = self._open.get(note.connection)
            if known is not None and self._writing:
                self._packet += _RELEASED.pack(b"R", known[0], note.direction is Direction.TO_SERVER, note.digest)
        elif isinstance(note, Accepted | Dialed):
            if note.connection in self._open:  # its end was not noted, and the ports are used again
                self.note(Closed(note.connection))
            self._last = self._last % _LAST_NUMBER + 1
            self._open[note.connection] = (self._last, note)
            if self._writing:
                self._packet += _begun(self._last, note, note.before)
        elif isinstance(note, Closed):
            known = self._open.pop(note.connection, None)
            if known is not None and self._writing:
                self._packet += _CLOSED.pack(b"C", known[0])
        if len(self._packet) >= PACKET_BYTES:
            self._cut()

    @property
    def noted(self) -> bool:
        """Whether anything was since the last `until`."""
        return bool(self._packet)

    def until(self, now_ns: int) -> None:
        """Everything before this time was noted; it can be sent now."""
        if self._writing:
            self._packet += _UNTIL.pack(b"U", now_ns)
            self._cut()

    def _cut(self) -> None:
        self.packets.append(self._packet)
        self._packet = bytearray()
        if self.behind:
            self.stop()

    def stop(self) -> None:
        """The reader is gone, or will be: what waits is nobody's."""
        self._writing = False
        self._packet = bytearray()

    def begin(self) -> None:
        """Another reader has come. Of the connections that are open it learns that they are; what was released on them before, it cannot know."""
        if self._writing:  # it is the first one
            return
        self._writing = True
        self.packets.clear()
        for number, note in self._open.values():
            self._packet += _begun(number, note, before=True)
            if len(self._packet) >= PACKET_BYTES:
                self._cut()


class NoteReader:
    """The other end."""

    def __init__(self) -> None:
        self._open: dict[int, Connection] = {}

    def read(self, packet: bytes) -> Iterator[Note | int]:
        """The notes, and times up to which they are complete. Raises ValueError."""
        at = 0
        try:
            while at < len(packet):
                kind = packet[at : at + 1]
                if kind == b"R":
                    _, number, to_server, sum = _RELEASED.unpack_from(packet, at)
                    at += _RELEASED.size
                    yield Released(sum, self._open[number], Direction.TO_SERVER if to_server else Direction.TO_CLIENT)
                elif kind == b"U":
                    yield _UNTIL.unpack_from(packet, at)[1]
                    at += _UNTIL.size
                elif kind == b"C":
                    yield Closed(self._open.pop(_CLOSED.unpack_from(packet, at)[1]))
                    at += _CLOSED.size
                elif kind in (b"A", b"D"):
                    _, number, how, length = _NEW.unpack_from(packet, at)
                    at += _NEW.size
                    connection = self._open[number] = _connection(packet[at : at + length])
                    at += length
                    yield (Accepted if kind == b"A" else Dialed)(connection, bool(how & _OPAQUE), bool(how & _BEFORE))
                else:
                    raise ValueError("no note")
        except (struct.error, KeyError) as error:
            raise ValueError("no note") from error


def _begun(number: int, note: Accepted | Dialed, before: bool) -> bytes:
    client, server = note.connection.client, note.connection.server
    addresses = f"{client.address} {client.port} {server.address} {server.port}".encode("ascii")
    how = (_OPAQUE if note.opaque else 0) | (_BEFORE if before else 0)
    return _NEW.pack(b"A" if isinstance(note, Accepted) else b"D", number, how, len(addresses)) + addresses


def _connection(addresses: bytes) -> Connection:
    """Raises ValueError."""
    client, client_port, server, server_port = addresses.decode("ascii").split(" ")
    return Connection(Endpoint(client, int(client_port)), Endpoint(server, int(server_port)))
