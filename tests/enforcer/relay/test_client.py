"""A client's connection over time: who says nothing, too little, or takes nothing is let go; the sweep is called here, not waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from enforcer.relay.client import Client as Served
from escrow.policy import Bounds, Policy
from tests.enforcer.relay.rig import QUICK, Client, Rig, call, gate, reply, result, stream, until

pytestmark = pytest.mark.anyio
POLICY = Policy(bounds=Bounds(head_s=100, idle_s=1000))
BIG = result("x" * (8 << 20))


async def served(rig: Rig) -> tuple[Client, Served]:
    """A new connection, from both ends."""
    before = set(rig.listener._clients)
    client = await rig.client()
    await until(lambda: len(rig.listener._clients) > len(before))
    [found] = rig.listener._clients - before
    return client, found


def after(rig: Rig, seconds: float) -> float:
    return rig.listener.now() + seconds


@pytest.mark.parametrize("sent", [b"", b"POST /mcp HTT", call()[:-1]], ids=["nothing", "half a head", "half a body"])
async def test_who_does_not_finish_a_request_is_let_go(sent: bytes, tmp_path: Path) -> None:
    async with gate(tmp_path, POLICY) as rig:
        client, here = await served(rig)
        await client.send(sent)
        limit_s = 1000 if sent.endswith(b"}") else 100
        await until(lambda: not sent or not here._wire.between or here._head is not None)
        here.sweep(after(rig, limit_s - 5))
        assert not here.transport.is_closing()
        here.sweep(after(rig, limit_s + 5))
        assert await client.rest() == b"" and rig.server.asked == []


async def test_a_second_request_in_pieces_has_no_more_time_than_the_first(tmp_path: Path) -> None:
    async with gate(tmp_path, POLICY, reply(result("ok"))) as rig:
        client, here = await served(rig)
        await client.send(call())
        await client.response()
        here.sweep(after(rig, 900))
        assert not here.transport.is_closing(), "between requests it may rest"
        await client.send(b"POST /mcp HTT")
        await until(lambda: not here._wire.between)
        here.sweep(after(rig, 105))
        assert await client.rest() == b""


async def test_a_call_that_runs_is_never_cut_off_by_the_clock(tmp_path: Path) -> None:
    opens = asyncio.Event()

    async def slowly(_server: object, _reader: object, writer: asyncio.StreamWriter) -> None:
        await opens.wait()
        writer.write(reply(result("late")))

    async with gate(tmp_path, POLICY, slowly) as rig:
        client, here = await served(rig)
        await client.send(call())
        await until(lambda: len(rig.server.asked) == 1)
        here.sweep(after(rig, 1e6))
        opens.set()
        assert (await client.response()).body == result("late")


@pytest.mark.parametrize("answer", [reply(BIG), stream(*[b"data: " + BIG + b"\n\n"] * 3)], ids=["body", "events"])
async def test_who_takes_nothing_is_cut_off_and_holds_up_nobody(answer: bytes, tmp_path: Path) -> None:
    async with gate(tmp_path, POLICY, answer, reply(result("other"))) as rig:
        client, here = await served(rig)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(call())
        await until(lambda: here.paused)
        assert (await rig.ask(call(n=2))).body == result("other")
        here.sweep(after(rig, 0))
        here.sweep(after(rig, 290))
        assert not here.transport.is_closing()
        here.sweep(after(rig, 310))
        assert here.transport.is_closing()
        await until(lambda: here not in rig.listener._clients)


async def test_a_stream_whose_client_does_not_read_is_not_read_either(tmp_path: Path) -> None:
    """What is kept for a client that reads slowly is bounded: the server waits."""
    event = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"data":"' + b"x" * 200_000 + b'"}}\n\n'
    sent = 0

    async def pour(_server: object, _reader: object, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(400):
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            sent += 1
        writer.write(b"0\r\n\r\n")

    async with gate(tmp_path, QUICK, pour) as rig:
        client, here = await served(rig)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(b"GET /mcp HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
        await until(lambda: here.paused)
        stalled = -1
        while stalled != sent:
            stalled = sent
            for _ in range(50):
                await asyncio.sleep(0)
        assert sent < 200 and here.transport.get_write_buffer_size() < 4 << 20
