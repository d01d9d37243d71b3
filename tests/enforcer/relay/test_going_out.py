"""What a client sends is judged before it goes on: held calls run once they are approved, and not a moment before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from escrow.item import Item, State
from escrow.policy import Policy
from tests.enforcer.relay.rig import BOTH_WAYS, PATIENT, QUICK, SECRET, Rig, Server, call, gate, post, reply, result, until

pytestmark = pytest.mark.anyio
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
SESSION = b"Mcp-Session-Id: s1"
NOTE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": SECRET}}
ANSWER = {"jsonrpc": "2.0", "id": 4, "result": {"action": "accept", "content": {"key": SECRET}}}


def secretly(call_id: int | str = 1) -> bytes:
    return call(call_id, "send", text=SECRET)


async def approve(rig: Rig, item_id: str) -> Item:
    return await rig.custody.approve(item_id, "alice", "read it", (await rig.custody.item(item_id)).result_sha256)


async def test_a_call_with_clean_arguments_goes_on_at_once(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, reply(result("ok")), judges=BOTH_WAYS) as rig:
        assert (await rig.ask(call())).body == result("ok")


async def test_a_held_call_runs_when_it_is_approved_and_its_client_gets_the_result(tmp_path: Path) -> None:
    async with gate(tmp_path, PATIENT, reply(result("sent")), judges=BOTH_WAYS) as rig:
        client = await rig.client()
        await client.send(secretly())
        item_id = await rig.held()
        assert rig.server.asked == []
        await approve(rig, item_id)
        assert (await client.response()).body == result("sent")
        [asked] = rig.server.asked
        assert SECRET.encode() in asked.body and rig.store.get(item_id).state is State.DELIVERED


async def test_a_denied_call_never_runs_and_the_client_is_told(tmp_path: Path) -> None:
    async with gate(tmp_path, PATIENT, judges=BOTH_WAYS) as rig:
        client = await rig.client()
        await client.send(secretly())
        await rig.custody.deny(await rig.held(), "bob", "no")
        answer = await client.response()
        assert b'"isError":true' in answer.body and answer.json["id"] == 1 and rig.server.asked == []


async def test_a_call_approved_after_its_client_left_waits_for_the_same_call(tmp_path: Path) -> None:
    async with gate(tmp_path, PATIENT, reply(result("sent", 2)), judges=BOTH_WAYS) as rig:
        client = await rig.client()
        await client.send(secretly())
        item_id = await rig.held()
        await client.close()
        await until(lambda: rig.store.get(item_id).orphaned)
        await approve(rig, item_id)
        assert rig.server.asked == []
        assert (await rig.ask(secretly(2))).body == result("sent", 2) and len(rig.server.asked) == 1


async def test_the_result_of_a_call_that_was_approved_is_judged_like_any_other(tmp_path: Path) -> None:
    async with gate(tmp_path, PATIENT, reply(result(SECRET)), judges=BOTH_WAYS) as rig:
        client = await rig.client()
        await client.send(secretly())
        await approve(rig, await rig.held())
        await rig.custody.deny(await rig.held(2), "bob", "no")
        assert b"did not release" in (await client.response()).body and not rig.leaked()


@pytest.mark.parametrize("message", [NOTE, ANSWER])
async def test_a_notification_or_an_answer_that_must_not_leave_is_refused(message: dict[str, Any], tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, ACCEPTED, judges=BOTH_WAYS) as rig:
        client = await rig.client()
        await client.send(post(message, SESSION))
        refused = await client.response()
        assert refused.status == 403 and b"does not pass this message on" in refused.body and rig.server.asked == []
        harmless = {key: value for key, value in message.items() if key != "result"} | ({"result": {}} if "result" in message else {"params": {}})
        await client.send(post(harmless, SESSION))
        assert (await client.response()).status == 202, "the client may try again, on the same connection"


async def test_while_the_server_is_locked_every_call_is_answered_and_none_runs(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, reply(result("ok", 2))) as rig:
        await rig.custody.lock("alice", "drill")
        client = await rig.client()
        await client.send(call())
        answer = await client.response()
        assert answer.json["id"] == 1 and b'"isError":true' in answer.body and rig.server.asked == []
        await rig.custody.unlock("alice", "over")
        await client.send(call(2))
        assert (await client.response()).body == result("ok", 2)


@pytest.mark.parametrize("approved", [True, False])
async def test_a_held_call_of_the_pair_of_connections_runs_or_is_refused_on_its_stream(approved: bool, tmp_path: Path) -> None:
    """2024-11-05: the POST is accepted at once; what becomes of it is said on the stream."""
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def events(_server: Server, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (line := await lines.get()) != b"":
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
        writer.write(b"0\r\n\r\n")

    policy: Policy = PATIENT
    async with gate(tmp_path, policy, events, ACCEPTED, judges=BOTH_WAYS) as rig:
        client = await rig.client()
        await client.send(b"GET /sse HTTP/1.1\r\nHost: a\r\n\r\n")
        lines.put_nowait(b"event: endpoint\ndata: /messages?sid=9\n\n")
        await client.reader.readuntil(b"\r\n\r\n")
        assert b"/messages?sid=9" in await client.event()
        assert (await rig.ask(post(secretly(7).partition(b"\r\n\r\n")[2], path=b"/messages?sid=9"))).status == 202
        item_id = await rig.held()
        assert len(rig.server.asked) == 1
        if approved:
            await approve(rig, item_id)
            await until(lambda: len(rig.server.asked) == 2)
            lines.put_nowait(b"data: " + result("sent", 7) + b"\n\n")
            assert result("sent", 7) in await client.event()
        else:
            await rig.custody.deny(item_id, "bob", "no")
            assert b'"isError":true' in await client.event() and len(rig.server.asked) == 1
        lines.put_nowait(b"")
