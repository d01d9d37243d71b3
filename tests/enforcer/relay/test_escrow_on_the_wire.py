"""Held, claimed, approved, denied, expired, retried, cancelled: transcripts of the wire, with the server's own count of runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from enforcer.store import Store
from escrow.item import Item, Payload, State
from escrow.policy import Escrow, Policy
from tests.enforcer.relay.rig import PATIENT, QUICK, SECRET, Answer, Client, Rig, Server, call, gate, post, reply, result, stream, until

pytestmark = pytest.mark.anyio
BAD = result(SECRET)
BODY, EVENTS = reply(BAD), stream(b"id: 5\ndata: " + BAD + b"\n\n")
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
SESSION = b"Mcp-Session-Id: s1"
MODERN = b"MCP-Protocol-Version: 2026-07-28"


async def approve(rig: Rig, item_id: str) -> Item:
    return await rig.custody.approve(item_id, "alice", "read it", (await rig.custody.item(item_id)).result_sha256)


@pytest.mark.parametrize("answer", [BODY, EVENTS])
async def test_a_held_result_is_claimed_and_after_approval_collected_once(answer: bytes, tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, answer, reply(result("second run", 2))) as rig:
        claim = await rig.ask(call(1))
        assert b'"isError":true' in claim.body and b"same call again" in claim.body and not rig.leaked()
        item_id = await rig.held()
        assert item_id.encode() in claim.body
        await approve(rig, item_id)
        collected = await rig.ask(call("again"))
        assert collected.body == BAD.replace(b'"id": 1', b'"id": "again"') and len(rig.server.asked) == 1
        await until(lambda: rig.store.get(item_id).state is State.DELIVERED)
        assert (await rig.ask(call(2))).body == result("second run", 2), "what is delivered is over: the next call is a new one"


@pytest.mark.parametrize("answer", [BODY, EVENTS])
async def test_a_waiting_client_gets_the_bytes_when_they_are_approved(answer: bytes, tmp_path: Path) -> None:
    async with gate(tmp_path, PATIENT, answer) as rig:
        client = await rig.client()
        await client.send(call())
        item_id = await rig.held()
        await approve(rig, item_id)
        assert BAD in (await client.response()).body
        await until(lambda: rig.store.get(item_id).state is State.DELIVERED)


@pytest.mark.parametrize("answer", [BODY, EVENTS])
async def test_a_denial_is_said_to_who_waits_and_stands_for_the_same_call(answer: bytes, tmp_path: Path) -> None:
    async with gate(tmp_path, PATIENT, answer, reply(result("ran again", 3))) as rig:
        client = await rig.client()
        await client.send(call())
        await rig.custody.deny(await rig.held(), "bob", "no")
        assert b"did not release" in (await client.response()).body
        again = await rig.ask(call(2))
        assert again.json["id"] == 2 and b"did not release" in again.body and len(rig.server.asked) == 1
        assert (await rig.ask(call(3, other=1))).body == result("ran again", 3), "another call is another call"
        assert not rig.leaked()


@pytest.mark.parametrize("answer", [BODY, EVENTS])
async def test_at_the_deadline_the_waiter_is_told_and_a_new_call_runs(answer: bytes, tmp_path: Path) -> None:
    policy = Policy(escrow=Escrow(claim_after_s=60, hold_for_s=0.05))
    async with gate(tmp_path, policy, answer, reply(result("new", 2))) as rig:
        assert b"nobody released it in time" in (await rig.ask(call())).body
        assert rig.store.get(await rig.held()).state is State.EXPIRED
        assert (await rig.ask(call(2))).body == result("new", 2) and not rig.leaked()


async def test_of_several_waiters_one_gets_the_bytes_and_the_others_the_claim(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, BODY) as rig:
        await rig.ask(call(1))
        item_id = await rig.held()
        rig.custody.policy = PATIENT
        waiters = [await rig.client() for _ in range(3)]
        for number, client in enumerate(waiters):
            await client.send(call(number))
        await until(lambda: len(rig.custody._executor.entries[item_id].waiting) == 3)
        await approve(rig, item_id)
        answers = [await client.response() for client in waiters]
        assert sorted(SECRET.encode() in answer.body for answer in answers) == [False, False, True]
        assert [answer.json["id"] for answer in answers] == [0, 1, 2] and len(rig.server.asked) == 1


@pytest.mark.parametrize("era", [SESSION, MODERN])
@pytest.mark.parametrize("answer", [BODY, EVENTS])
async def test_a_client_that_vanished_while_it_was_held_comes_back_for_it(answer: bytes, era: bytes, tmp_path: Path) -> None:
    async with gate(tmp_path, PATIENT, answer, BODY) as rig:
        client = await rig.client()
        await client.send(call(1, "read", era))
        item_id = await rig.held()
        await client.close()
        await until(lambda: rig.store.get(item_id).orphaned)
        again = await rig.client()
        await again.send(call(2, "read", era))
        await until(lambda: len(rig.custody._executor.entries[item_id].waiting) == 1)
        await approve(rig, item_id)
        assert (await again.response()).json["id"] == 2 and len(rig.server.asked) == 1


def later(raw: bytes, gate_opens: asyncio.Event) -> Answer:
    async def answer(_server: Server, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate_opens.wait()
        writer.write(raw)
        await writer.drain()

    return answer


@pytest.mark.parametrize("raw", [reply(result("slow")), stream(b"data: " + result("slow") + b"\n\n")])
async def test_a_client_that_vanished_while_the_tool_ran_gets_that_runs_result(raw: bytes, tmp_path: Path) -> None:
    opens = asyncio.Event()
    async with gate(tmp_path, PATIENT, later(raw, opens), reply(result("ran twice"))) as rig:
        client = await rig.client()
        await client.send(call(1, "read", SESSION))
        await until(lambda: len(rig.server.asked) == 1)
        await client.close()
        await until(lambda: any(run.orphaned for run in rig.custody._under_way))
        again = await rig.client()
        await again.send(call(2, "read", SESSION))
        opens.set()
        answer = await again.response()
        assert answer.json["id"] == 2 and b"slow" in answer.body and len(rig.server.asked) == 1


async def test_two_calls_meant_to_be_parallel_both_run(tmp_path: Path) -> None:
    async with gate(tmp_path, PATIENT, BODY, BODY) as rig:
        clients = [await rig.client(), await rig.client()]
        for client in clients:
            await client.send(call())
        await rig.held(2)
        assert len(rig.server.asked) == 2


async def test_another_principal_gets_nothing(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, BODY, reply(result("own run"))) as rig:
        await rig.ask(call(1, "read", b"Authorization: Bearer alice"))
        await approve(rig, await rig.held())
        assert (await rig.ask(call(1, "read", b"Authorization: Bearer mallory"))).body == result("own run")
        assert not rig.leaked()


async def test_a_new_session_of_the_same_principal_gets_it(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, BODY) as rig:
        await rig.ask(call(1, "read", b"Mcp-Session-Id: one"))
        await approve(rig, await rig.held())
        assert SECRET.encode() in (await rig.ask(call(1, "read", b"Mcp-Session-Id: two"))).body


async def test_a_cancelled_call_leaves_its_item_for_a_retry(tmp_path: Path) -> None:
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    async with gate(tmp_path, PATIENT, BODY, ACCEPTED, ACCEPTED) as rig:
        client = await rig.client()
        await client.send(call(1, "read", SESSION))
        item_id = await rig.held()
        await rig.ask(post({**cancelled, "params": {"requestId": True}}, SESSION))
        assert not rig.store.get(item_id).orphaned, "true is no id"
        await rig.ask(post(cancelled, SESSION))
        await until(lambda: rig.store.get(item_id).orphaned)
        await approve(rig, item_id)
        assert SECRET.encode() in (await rig.ask(call(2, "read", SESSION))).body
        assert len(rig.server.asked) == 3


class Full(Store):
    """A store on a disk that is full from the given moment on."""

    full = False

    def put(self, item: Item, payload: Payload) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().put(item, payload)

    def update(self, item: Item) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().update(item)


@pytest.mark.parametrize("answer", [BODY, EVENTS])
async def test_what_cannot_be_written_down_is_refused_and_never_released(answer: bytes, tmp_path: Path) -> None:
    store = Full(tmp_path / "state")
    store.full = True
    async with gate(tmp_path, QUICK, answer, store=store) as rig:
        assert b"did not release" in (await rig.ask(call())).body
        assert not rig.leaked() and rig.custody.counters.held == 0


async def test_a_disk_that_fills_while_a_result_is_held_leaves_no_client_without_an_answer(tmp_path: Path) -> None:
    store = Full(tmp_path / "state")
    async with gate(tmp_path, Policy(escrow=Escrow(claim_after_s=0.2)), BODY, store=store) as rig:
        client = await rig.client()
        await client.send(call())
        item_id = await rig.held()
        store.full = True
        with pytest.raises(Exception, match="No space"):
            await approve(rig, item_id)
        assert b"same call again" in (await client.response()).body
        store.full = False
        await approve(rig, item_id)
        assert SECRET.encode() in (await rig.ask(call(2))).body and len(rig.server.asked) == 1


async def test_a_payload_altered_on_disk_is_not_released_though_it_is_approved(tmp_path: Path) -> None:
    async with gate(tmp_path, PATIENT, BODY) as rig:
        client = await rig.client()
        await client.send(call())
        item_id = await rig.held()
        rig.store._items.execute("UPDATE payloads SET sealed = zeroblob(200)")
        await approve(rig, item_id)
        assert b"did not release" in (await client.response()).body
        with pytest.raises(Exception, match="already"):
            await rig.custody.deny(item_id, "bob", "late")


async def test_a_request_of_the_servers_that_is_held_is_answered_to_the_server(tmp_path: Path) -> None:
    asks = b'{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{"message":"' + SECRET.encode() + b'"}}'
    answers = (stream(b"data: " + asks + b"\n\ndata: " + result("done") + b"\n\n"), b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
    store = Full(tmp_path / "state")
    store.full = True
    async with gate(tmp_path, QUICK, *answers, store=store) as rig:
        answer = await rig.ask(call(1, "read", SESSION))
        assert answer.body.count(b"data: ") == 1 and result("done") in answer.body and not rig.leaked()
        await until(lambda: len(rig.server.asked) == 2)
        assert b'"error"' in rig.server.asked[1].body and SESSION.lower() in rig.server.asked[1].head.lower()


async def test_items_outlive_the_daemon(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, BODY) as rig:
        await rig.ask(call())
        item_id = await rig.held()
    async with gate(tmp_path, QUICK) as rig:
        await approve(rig, item_id)
        assert SECRET.encode() in (await rig.ask(call())).body and rig.server.asked == []


async def test_an_endpoint_is_a_session_and_answers_come_on_its_stream(tmp_path: Path) -> None:
    """2024-11-05: the answer comes on the GET stream; a held one is claimed there."""
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def events(_server: Server, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (line := await lines.get()) != b"":
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
        writer.write(b"0\r\n\r\n")

    accepted = b"HTTP/1.1 202 Accepted\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\nAccepted"
    async with gate(tmp_path, QUICK, events, accepted) as rig:
        client: Client = await rig.client()
        await client.send(b"GET /sse HTTP/1.1\r\nHost: a\r\n\r\n")
        lines.put_nowait(b"event: endpoint\ndata: /messages?sid=9\n\n")
        await client.reader.readuntil(b"\r\n\r\n")
        assert b"/messages?sid=9" in await client.event()
        assert (await rig.ask(post(call().partition(b"\r\n\r\n")[2], path=b"/messages?sid=9"))).status == 202
        lines.put_nowait(b"data: " + BAD + b"\n\n")
        assert b"same call again" in await client.event() and not rig.leaked()
        await approve(rig, await rig.held())
        assert (await rig.ask(post(call(8).partition(b"\r\n\r\n")[2], path=b"/messages?sid=9"))).status == 202
        assert BAD.replace(b'"id": 1', b'"id": 8') in await client.event() and len(rig.server.asked) == 2
        lines.put_nowait(b"")
