"""The witness over real TCP: many clients at once, big answers, streams, connections broken off; and real bypasses."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from enforcer.witness import Alarm, WitnessAdapter
from escrow.events import Direction
from escrow.flows.digest import digest
from escrow.flows.messages import Message, Rpc
from escrow.flows.notes import Accepted, Closed, Released, connection_of
from escrow.sse import Event, encode
from tests.enforcer.helper.world import Net, net
from tests.enforcer.witness.wire import Capture

pytestmark = [pytest.mark.bpf, pytest.mark.anyio]
PORT = 7720
CLIENTS = 64
CALLS = 6


@pytest.fixture
def inside() -> Iterator[Net]:
    with net("w") as made:
        yield made


class Gate:
    """Answers calls and notes what it sends. forge: answers what it notes otherwise; silent: notes nothing."""

    def __init__(self, adapter: WitnessAdapter, *, forge: bool = False, silent: bool = False) -> None:
        self.adapter, self.forge, self.silent = adapter, forge, silent

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = connection_of(writer.get_extra_info("peername"), writer.get_extra_info("sockname"))
        if not self.silent:
            self.adapter.note(Accepted(link))
        try:
            while line := await reader.readline():
                length = 0
                while (field := await reader.readline()) != b"\r\n":
                    if field.lower().startswith(b"content-length:"):
                        length = int(field.split(b":")[1])
                call = json.loads(await reader.readexactly(length))
                said = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": {"text": "z" * call["params"]["size"]}}).encode()
                if not self.silent:
                    self.adapter.note(Released(digest(said), link, Direction.TO_CLIENT))
                if self.forge and call["params"].get("forge"):
                    said = said.replace(b"z", b"x", 1)
                if b"/sse" in line:
                    data = encode(Event("message", said))
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                    writer.write(b"a\r\n: ping\r\n\r\n\r\n")
                    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(said) + said)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            if not self.silent:
                self.adapter.note(Closed(link))
            writer.close()


async def client(inside: Net, number: int, host: str, *, forge: bool = False) -> None:
    """Some calls on one connection, of sizes from nothing to 1 MiB; every fourth is broken off by a reset after the last answer."""
    order = random.Random(number)
    connected = await asyncio.to_thread(inside.connect, host, PORT)
    reader, writer = await asyncio.open_connection(sock=connected, limit=4 << 20)
    for at in range(CALLS):
        size = order.choice([0, 1, 4096, 16383, 16384, 16385, 65536, 1 << 20 if number % 16 == 0 else 9])
        body = json.dumps({"jsonrpc": "2.0", "id": at, "method": "tools/call", "params": {"name": f"t{number}", "size": size or 1, "forge": forge}}).encode()
        head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (order.choice([b"/mcp", b"/sse"]), len(body))
        for part in (head + body,) if order.random() < 0.5 else (head, body):
            writer.write(part)
            await writer.drain()
        answer = await reader.readuntil(b"\r\n\r\n")
        if b"content-length" in answer:
            await reader.readexactly(int(answer.partition(b"content-length: ")[2].split()[0]))
        else:
            await reader.readuntil(b"\r\n0\r\n\r\n")
    if number % 4 == 0:
        connected = writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.close()


class World:
    def __init__(self) -> None:
        self.alarms: list[Alarm] = []
        self.messages: list[Message] = []
        self.now_ns = 0
        self.adapter = WitnessAdapter(frozenset({PORT}), self.alarms.append, self.messages.append, clock_ns=lambda: self.now_ns)

    def judge(self, capture: Capture) -> None:
        slices = list(capture.slices())
        for at in range(0, len(slices), 1000):
            self.adapter.events(slices[at : at + 1000])
        for _ in range(2):
            self.now_ns = max(self.now_ns, slices[-1].time_ns) + 10**10
            self.adapter.tick()


@asynccontextmanager
async def served(inside: Net, gate: Gate, host: str) -> AsyncIterator[None]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = inside.run(lambda: socket.create_server((host, PORT), family=family, backlog=256))
    async with await asyncio.start_server(gate.serve, sock=listener, limit=1 << 20):
        yield


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_every_message_of_many_clients_is_whole_paired_and_witnessed(inside: Net, host: str) -> None:
    world = World()
    with Capture(inside, PORT) as capture:
        async with served(inside, Gate(world.adapter), host):
            await asyncio.gather(*(client(inside, number, host) for number in range(CLIENTS)))
    world.judge(capture)
    assert world.alarms == []
    assert world.adapter.counters()["witnessed"] == CLIENTS * CALLS
    assert len(world.messages) == 2 * CLIENTS * CALLS and all(message.complete for message in world.messages)
    answers = [message.content for message in world.messages if message.unit.direction is Direction.TO_CLIENT]
    for answer in answers:
        assert isinstance(answer, Rpc) and answer.call is not None and getattr(answer.message, "id", None) == answer.call.id


async def test_one_forged_answer_among_many_is_found(inside: Net) -> None:
    world = World()
    with Capture(inside, PORT) as capture:
        async with served(inside, Gate(world.adapter, forge=True), "127.0.0.1"):
            await asyncio.gather(*(client(inside, number, "127.0.0.1", forge=number == 3) for number in range(8)))
    world.judge(capture)
    assert [alarm.certain for alarm in world.alarms] == [True] * CALLS
    assert world.adapter.counters()["witnessed"] == 7 * CALLS


async def test_a_process_that_answers_in_the_servers_place_is_found(inside: Net) -> None:
    world = World()
    with Capture(inside, PORT) as capture:
        async with served(inside, Gate(world.adapter, silent=True), "127.0.0.1"):
            await client(inside, 1, "127.0.0.1")
    world.judge(capture)
    assert [(alarm.certain, alarm.what) for alarm in world.alarms] == [(True, "bytes were seen on a connection that the gate did not make or accept")]
