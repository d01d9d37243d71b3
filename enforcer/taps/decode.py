"""Records → events. Pure but for the memory it reads: every record is bounded by its own lengths, and those by its tier.

What the kernel writes is trusted to be laid out as `records` says (checked at start); payload is only ever copied.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from mmap import mmap

from enforcer.taps.evidence import CipherSeen, FdGiven
from enforcer.taps.records import TCP, TCP_CONNECTION, TLS, TLS_OBJECT, Kind
from escrow.events import (
    Connection,
    Direction,
    Endpoint,
    Event,
    Process,
    ProcessEnded,
    ProcessStarted,
    TcpFlags,
    TcpGap,
    TcpSlice,
    TlsClosed,
    TlsDirection,
    TlsEnd,
    TlsObject,
    TlsOpened,
    TlsSlice,
)

Decoded = Event | CipherSeen | FdGiven

_AF_INET = 2
_MAPPED = b"\0" * 10 + b"\xff\xff"
_CACHED = 65536  # connections and objects; a flood of new ones costs time, not memory

_DIRECTIONS = (Direction.TO_SERVER, Direction.TO_CLIENT)
_TLS_DIRECTIONS = (TlsDirection.READ, TlsDirection.WRITE)
_ENDS = (TlsEnd.SHUTDOWN, TlsEnd.FREED)
_GAPS = ("fragment", "unreadable")
_FLAGS = tuple(TcpFlags(bits) for bits in range(8))


def _address(family: int, raw: bytes) -> str:
    if family == _AF_INET:
        return str(ipaddress.IPv4Address(raw[:4]))
    if raw.startswith(_MAPPED):
        return str(ipaddress.IPv4Address(raw[12:]))
    return str(ipaddress.IPv6Address(raw))


class Decoder:
    """Keeps the connections and objects it has named, so that each is one value however many records it has."""

    def __init__(self) -> None:
        self._connections: dict[bytes, Connection] = {}
        self._objects: dict[bytes, TlsObject] = {}

    def decode(self, memory: mmap | bytes, starts: Iterable[int]) -> list[Decoded]:
        """The records that begin at `starts` (Ring.take)."""
        events: list[Decoded] = []
        append, unpack, head_bytes = events.append, TCP.unpack_from, TCP.size
        connections, directions, all_flags = self._connections, _DIRECTIONS, _FLAGS
        for at in starts:
            if memory[at] != 1:  # Kind.TCP_SLICE
                append(self._other(memory, at))
                continue
            _kind, direction, flags, _detail, interface, time_ns, raw, sequence, captured, missing = unpack(memory, at)
            connection = connections.get(raw) or self._connection(raw)
            at += head_bytes
            append(TcpSlice(connection, directions[direction], time_ns, sequence, memory[at : at + captured], missing, all_flags[flags], interface))
        return events

    def _other(self, memory: mmap | bytes, at: int) -> Decoded:
        if memory[at] == Kind.TCP_GAP:
            _kind, way, _flags, detail, _interface, time_ns, raw, sequence, _captured, _missing = TCP.unpack_from(memory, at)
            return TcpGap(self._connections.get(raw) or self._connection(raw), _DIRECTIONS[way], time_ns, sequence, _GAPS[detail])
        kind, way, detail, thread, time_ns, raw, sequence, offset, total, missing, captured = TLS.unpack_from(memory, at)
        about = self._objects.get(raw) or self._object(raw)
        at += TLS.size
        if kind == Kind.TLS_SLICE:
            return TlsSlice(about, _TLS_DIRECTIONS[way], time_ns, thread, sequence, offset, total, memory[at : at + captured], missing, detail == 1)
        match Kind(kind):
            case Kind.TLS_OPENED:
                return TlsOpened(about, time_ns, detail == 1)
            case Kind.TLS_CLOSED:
                return TlsClosed(about, time_ns, _ENDS[detail])
            case Kind.TLS_CIPHER:
                return CipherSeen(about, _TLS_DIRECTIONS[way], time_ns, memory[at : at + captured])
            case Kind.TLS_FD:
                return FdGiven(about, time_ns, total)
            case Kind.PROCESS_STARTED:
                return ProcessStarted(about.process, time_ns)
            case Kind.PROCESS_ENDED:
                return ProcessEnded(about.process, time_ns)
            case Kind.TCP_SLICE | Kind.TCP_GAP | Kind.TLS_SLICE:  # decoded above
                raise AssertionError(kind)

    def _connection(self, raw: bytes) -> Connection:
        family, client_port, server_port, client, server = TCP_CONNECTION.unpack(raw)
        if len(self._connections) >= _CACHED:
            self._connections.clear()
        made = Connection(Endpoint(_address(family, client), client_port), Endpoint(_address(family, server), server_port))
        self._connections[raw] = made
        return made

    def _object(self, raw: bytes) -> TlsObject:
        pid, netns, start_ns, cgroup, pointer, number = TLS_OBJECT.unpack(raw)
        if len(self._objects) >= _CACHED:
            self._objects.clear()
        made = TlsObject(Process(pid, start_ns, cgroup, netns), pointer, number)
        self._objects[raw] = made
        return made
