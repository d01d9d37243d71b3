"""Traffic for the tests of flows: connections, slices of byte streams, and reading them back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from escrow.events import Connection, Direction, Endpoint, Process, TcpFlags, TcpSlice, TlsDirection, TlsObject, TlsSlice
from escrow.flows.flows import Flows
from escrow.flows.unit import Unit, UnitKind

UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT
CLIENT_ISN, SERVER_ISN = 0xFFFFFF00, 0x7FFFFFF0
PROCESS = Process(4711, 1, 2, 3)
QUIET = frozenset({UnitKind.FIRST, UnitKind.STREAM_END})


def connection(port: int = 40000) -> Connection:
    return Connection(Endpoint("127.0.0.1", port), Endpoint("127.0.0.1", 8000))


def slice_of(link: Connection, direction: Direction, at: int, data: bytes = b"", *, flags: TcpFlags = TcpFlags.NONE, missing: int = 0, ns: int = 0) -> TcpSlice:
    """A slice whose first byte is the stream's byte number `at`; with SYN, the handshake's."""
    isn = CLIENT_ISN if direction is UP else SERVER_ISN
    first = isn if flags & TcpFlags.SYN else isn + 1 + at
    return TcpSlice(link, direction, ns, first & 0xFFFFFFFF, data, missing, flags, 1)


def opening(link: Connection) -> list[TcpSlice]:
    return [slice_of(link, UP, 0, flags=TcpFlags.SYN), slice_of(link, DOWN, 0, flags=TcpFlags.SYN)]


def closing(link: Connection, up: int, down: int) -> list[TcpSlice]:
    """FINs after so many bytes."""
    return [slice_of(link, UP, up, flags=TcpFlags.FIN), slice_of(link, DOWN, down, flags=TcpFlags.FIN)]


class Talk:
    """A connection's transcript: says, one after the other."""

    def __init__(self, link: Connection | None = None, size: int = 1 << 14) -> None:
        self.link = link or connection()
        self.size = size
        self.at = {UP: 0, DOWN: 0}
        self.events: list[TcpSlice] = opening(self.link)

    def say(self, direction: Direction, data: bytes) -> Talk:
        for start in range(0, len(data), self.size):
            piece = data[start : start + self.size]
            self.events.append(slice_of(self.link, direction, self.at[direction], piece))
            self.at[direction] += len(piece)
        return self

    def close(self) -> Talk:
        self.events += closing(self.link, self.at[UP], self.at[DOWN])
        return self


def units(events: Iterable[TcpSlice], flows: Flows | None = None) -> list[Unit]:
    """What events come to, to the end of time."""
    flows = flows or Flows()
    return [*flows.feed(events), *flows.tick(10**12), *flows.close(10**12)]


def told(found: Iterable[Unit]) -> list[tuple[Direction, UnitKind, bytes, str]]:
    return [(unit.direction, unit.kind, unit.raw, unit.why) for unit in found if unit.kind not in QUIET or unit.why]


def tls_object(number: int = 1, process: Process = PROCESS) -> TlsObject:
    return TlsObject(process, 0x7F00, number)


def tls_calls(object: TlsObject, direction: TlsDirection, calls: Iterable[bytes], first: int = 0, slice_bytes: int = 16384) -> Iterator[TlsSlice]:
    for number, data in enumerate(calls, first):
        for offset in range(0, len(data), slice_bytes):
            yield TlsSlice(object, direction, 0, 1, number, offset, len(data), data[offset : offset + slice_bytes], 0, True)


def post(body: bytes, headers: str = "", target: str = "/mcp") -> bytes:
    return f"POST {target} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def answer(body: bytes, headers: str = "Content-Type: application/json\r\n", status: int = 200) -> bytes:
    return f"HTTP/1.1 {status} OK\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(*events: bytes, headers: str = "", end: bool = True) -> bytes:
    """An answer of events, one chunk each."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{headers}Transfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(chunk(event) for event in events) + (b"0\r\n\r\n" if end else b"")
