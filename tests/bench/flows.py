"""How many records a second one core takes from the ring's bytes to messages: decoding, reassembly, HTTP, JSON-RPC, the witness.

`python -m tests.bench.flows` alone; also one of `python -m tests.bench`. The records are written as the kernel writes them, of 64
connections whose segments are interleaved in bursts as a network card's interrupts give them; they are decoded from memory, in batches of the
reader's size. Best of several runs: what other processes take from the core is not the decoder's.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterable

from enforcer.taps.decode import Decoder
from enforcer.taps.records import TCP, TCP_CONNECTION
from escrow.events import Connection, Direction, TcpFlags
from escrow.flows.bounds import Bounds
from escrow.flows.digest import digest
from escrow.flows.flows import Flows
from escrow.flows.notes import Accepted, Released
from escrow.flows.reading import Reading
from escrow.flows.stream import TcpStream
from escrow.flows.witness import Witness
from tests.bench.figure import Figure, figure

GOAL = 500_000.0
CONNECTIONS = 64
BURST = 8
BATCH = 4096
RUNS = 5
SMALL = 200
"""Bytes of a small record's payload."""
ASK = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "read_file", "arguments": {"path": "/etc/motd"}}}).encode()
SAID = json.dumps({"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "x" * 120}]}}).encode()
REQUEST = b"POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ASK) + ASK
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(SAID) + SAID


class Records:
    """Records one behind the other in memory, and where each begins: what `Ring.take` gives."""

    def __init__(self) -> None:
        self.memory = bytearray()
        self.starts: list[int] = []
        self.at: dict[tuple[int, int], int] = {}

    def add(self, number: int, direction: int, data: bytes = b"", flags: TcpFlags = TcpFlags.NONE) -> None:
        self.memory += bytes(-len(self.memory) % 8)
        self.starts.append(len(self.memory))
        raw = TCP_CONNECTION.pack(socket.AF_INET, 40000 + number, 8000, bytes([127, 0, 0, 1]), bytes([127, 0, 0, 1]))
        sequence = self.at.get((number, direction), 1000)
        self.memory += TCP.pack(1, direction, int(flags), 0, 1, len(self.starts), raw, sequence, len(data), 0) + data
        self.at[number, direction] = (sequence + len(data) + bool(flags & TcpFlags.SYN)) & 0xFFFFFFFF

    def batches(self) -> Iterable[list[int]]:
        return (self.starts[at : at + BATCH] for at in range(0, len(self.starts), BATCH))


def _opened() -> Records:
    made = Records()
    for number in range(CONNECTIONS):
        made.add(number, 0, flags=TcpFlags.SYN)
        made.add(number, 1, flags=TcpFlags.SYN)
    return made


def streaming(count: int) -> Records:
    """Small segments of one long answer on each connection."""
    made = _opened()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n"
    for number in range(CONNECTIONS):
        made.add(number, 0, REQUEST)
        made.add(number, 1, head)
    data = b"y" * SMALL
    for at in range(count):
        made.add(at // BURST % CONNECTIONS, 1, data)
    return made


def calls(count: int) -> Records:
    """Whole small calls, a record each way."""
    made = _opened()
    for at in range(count // 2):
        made.add(at % CONNECTIONS, 0, REQUEST)
        made.add(at % CONNECTIONS, 1, ANSWER)
    return made


def _decode(records: Records) -> None:
    decoder, memory = Decoder(), bytes(records.memory)
    for starts in records.batches():
        decoder.decode(memory, starts)


def _reassemble(records: Records) -> None:
    """Bytes in order of every stream, and nothing more."""
    decoder, memory, bounds = Decoder(), bytes(records.memory), Bounds()
    up: dict[Connection, TcpStream] = {}
    down: dict[Connection, TcpStream] = {}
    quick: dict[int, tuple[TcpStream, TcpStream]] = {}
    for starts in records.batches():
        for event in decoder.decode(memory, starts):
            found = quick.get(id(event.connection))  # type: ignore[union-attr]
            if found is None:
                connection = event.connection  # type: ignore[union-attr]
                found = quick[id(connection)] = (up.setdefault(connection, TcpStream(bounds)), down.setdefault(connection, TcpStream(bounds)))
            stream = found[event.direction is Direction.TO_CLIENT]  # type: ignore[union-attr]
            stream.feed(event)  # type: ignore[arg-type]
            stream.out.clear()


def _units(records: Records) -> None:
    decoder, memory, flows = Decoder(), bytes(records.memory), Flows(Bounds(message_bytes=1 << 31, all_bytes=1 << 40))
    for starts in records.batches():
        flows.feed(decoder.decode(memory, starts))  # type: ignore[arg-type]


def _witnessed(records: Records) -> None:
    decoder, memory, flows, reading, witness = Decoder(), bytes(records.memory), Flows(), Reading(65536), Witness(frozenset({8000}))
    known: set[Connection] = set()
    sum = digest(SAID)
    for starts in records.batches():
        events = decoder.decode(memory, starts)
        for event in events:
            if event.connection not in known:  # type: ignore[union-attr]
                known.add(event.connection)  # type: ignore[union-attr]
                witness.note(Accepted(event.connection))  # type: ignore[union-attr]
        for unit in flows.feed(events):  # type: ignore[arg-type]
            if unit.raw == SAID:
                witness.note(Released(sum, unit.source, Direction.TO_CLIENT))  # type: ignore[arg-type]
            witness.saw(unit)
            reading.read(unit)
    assert not witness.out and witness.tally.witnessed


def _rate(what: Callable[[Records], None], records: Records) -> float:
    """Records a second of CPU time, the best of some runs."""
    best = 0.0
    for _ in range(RUNS):
        begun = time.process_time()
        what(records)
        best = max(best, len(records.starts) / (time.process_time() - begun))
    return best


def run() -> list[Figure]:
    small, small_calls = streaming(100_000), calls(40_000)
    return [
        figure("flows.decode", _rate(_decode, small), "records/s"),
        figure("flows.reassemble", _rate(_reassemble, small), "records/s", at_least=GOAL),
        figure("flows.bodies", _rate(_units, small), "records/s"),
        figure("flows.calls", _rate(_units, small_calls), "records/s"),
        figure("flows.witnessed_calls", _rate(_witnessed, small_calls), "records/s"),
    ]


if __name__ == "__main__":
    for each in run():
        print(f"{each['id']:24} {each['value']:12,.0f} {each['unit']}", file=sys.stdout)
