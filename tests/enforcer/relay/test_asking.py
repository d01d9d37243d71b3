"""Whose a request is, and what it says about itself: a session belongs to whom it began with, headers and body agree."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from tests.enforcer.relay.rig import QUICK, Server, call, gate, post, reply, result

pytestmark = pytest.mark.anyio
HELLO = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}
ALICE = b"Authorization: Bearer alice"


def encoded(name: str) -> bytes:
    return b"Mcp-Name: =?base64?" + base64.b64encode(name.encode()) + b"?="


@pytest.mark.parametrize(
    "name, header, passes",
    [
        ("read", b"Mcp-Name: read", True),
        ("read", b"Mcp-Name: write", False),
        ("read", b"Mcp-Name: READ", False),
        ("lesen-für", encoded("lesen-für"), True),
        ("read", encoded("read"), True),
        ("read", encoded("write"), False),
        ("read", b"Mcp-Name: =?base64?!?=", False),
        ("read", b"Mcp-Name: read\r\nMcp-Name: write", False),
    ],
)
async def test_the_name_in_the_header_is_that_in_the_body(name: str, header: bytes, passes: bool, tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, reply(result("ok"))) as rig:
        assert (await rig.ask(call(1, name, header))).status == (200 if passes else 400)
        assert len(rig.server.asked) == passes


async def test_a_header_beside_a_request_that_names_nothing_means_nothing(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, reply(b'{"jsonrpc":"2.0","id":1,"result":{}}')) as rig:
        assert (await rig.ask(post({"jsonrpc": "2.0", "id": 1, "method": "ping"}, b"Mcp-Name: x"))).status == 200


async def test_a_session_belongs_to_whom_it_began_with(tmp_path: Path) -> None:
    begun = reply(result("hello", 0), b"Mcp-Session-Id: s9")
    async with gate(tmp_path, QUICK, begun, reply(result("alice's")), reply(result("alice's"))) as rig:
        assert (await rig.ask(post(HELLO, ALICE))).headers[b"mcp-session-id"] == b"s9"
        assert (await rig.ask(call(1, "read", ALICE, b"Mcp-Session-Id: s9"))).body == result("alice's")
        refused = await rig.ask(call(1, "read", b"Mcp-Session-Id: s9"))
        assert refused.status == 403 and b"somebody else" in refused.body, "without her credential it is another's"
        assert (await rig.ask(call(1, "read", ALICE, b"Mcp-Session-Id: s9"))).status == 200
        assert len(rig.server.asked) == 3


@pytest.mark.parametrize(
    "endpoint, taken",
    [
        (b"/messages?sid=9", True),
        (b"http://gate.example/messages?sid=9", True),
        (b"http://evil.example/messages?sid=9", False),
        (b"http://gate.example@evil.example/messages?sid=9", False),
        (b"http://gate.example:99/messages?sid=9", False),
        (b"//evil.example/messages?sid=9", False),
        (b"javascript:alert(1)", False),
        (b"http://[/messages", False),
    ],
)
async def test_an_endpoint_is_taken_where_it_leads_back_here(endpoint: bytes, taken: bool, tmp_path: Path) -> None:
    over = asyncio.Event()

    async def events(_server: Server, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = b"event: endpoint\ndata: " + endpoint + b"\n\ndata: " + result("after") + b"\n\n"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(line), line))
        await writer.drain()
        await over.wait()

    accepted = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
    async with gate(tmp_path, QUICK, events, accepted) as rig:
        client = await rig.client()
        await client.send(b"GET /sse HTTP/1.1\r\nHost: gate.example\r\n\r\n")
        await client.reader.readuntil(b"\r\n\r\n")
        if taken:
            assert endpoint in await client.event()
            assert (await rig.ask(post(call().partition(b"\r\n\r\n")[2], ALICE, path=b"/messages?sid=9"))).status == 403, "another's session"
            assert (await rig.ask(post(call().partition(b"\r\n\r\n")[2], path=b"/messages?sid=9"))).status == 202
        else:
            assert rig.listener.context.sessions.get("sse:/messages?sid=9") is None
        over.set()
        assert b"evil" not in client.seen and b"javascript" not in client.seen


async def test_an_answer_to_head_says_that_the_connection_ends(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n") as rig:
        client = await rig.client()
        await client.send(b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"connection: close" in await client.rest()
