"""What a client sends that is not one plain MCP exchange: refused with a message, and the server never sees it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from escrow.policy import Bounds, Escrow, Policy, PrincipalRules
from tests.enforcer.relay.rig import QUICK, call, chunked, gate, post, reply, result

pytestmark = pytest.mark.anyio
BODY = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
SMUGGLED = {
    "both lengths": b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "two lengths": b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n" + BODY,
    "obs-fold": b"POST /mcp HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\nContent-Length: 40\r\n\r\n" + BODY,
    "bare LF": b"POST /mcp HTTP/1.1\nHost: a\nContent-Length: 40\n\n" + BODY,
    "identity": b"POST /mcp HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n" + BODY,
    "xchunked": b"POST /mcp HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n" + BODY,
    "a space before the colon": b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length : 40\r\n\r\n" + BODY,
    "NUL": b"POST /mcp HTTP/1.1\r\nHost: a\r\nX: \0\r\nContent-Length: 40\r\n\r\n" + BODY,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "TLS": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\0" * 160,
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
    "Upgrade": b"GET /mcp HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "h2c": b"GET /mcp HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    "Upgrade without Connection": b"GET /mcp HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    "an absolute target": b"POST http://evil.example/mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n" + BODY,
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "two hosts": b"GET /mcp HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "1 GiB declared": b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n" + b"x" * (1 << 17),
    "two credentials": post(BODY, b"Authorization: Bearer a", b"Authorization: Bearer b"),
    "two sessions": post(BODY, b"Mcp-Session-Id: a", b"Mcp-Session-Id: b"),
    "another method in the header": post(BODY, b"Mcp-Method: tools/call"),
    "a batch": post(b"[" + BODY + b"]"),
    "one key twice": post(b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}'),
    "no JSON": post(b"name=value"),
    "no JSON to a passthrough path": post(b"name=value", path=b"/health"),
    "NaN": post(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}'),
    "UTF-16": post(BODY.decode().encode("utf-16-le")),
    "a byte order mark": post(b"\xef\xbb\xbf" + BODY),
    "an id that is true": post(b'{"jsonrpc":"2.0","id":true,"method":"ping"}'),
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_it_is_refused_and_never_reaches_the_server(name: str, tmp_path: Path) -> None:
    policy = QUICK.model_copy(update={"bounds": Bounds(request_bytes=1 << 16)})
    async with gate(tmp_path, policy) as rig:
        client = await rig.client()
        await client.send(SMUGGLED[name])
        client.writer.write_eof()
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.1 5"), answer
        assert answer.count(b"connection: close") == 1 and b"Holdfast: " in answer
        assert rig.server.asked == [] and rig.custody.counters.unreadable == 1


async def test_a_credential_is_asked_for_where_the_policy_wants_one(tmp_path: Path) -> None:
    policy = Policy(principal=PrincipalRules(require="credential"))
    async with gate(tmp_path, policy, reply(result("ok"))) as rig:
        assert (await rig.ask(call())).status == 403
        assert rig.server.asked == []
        assert (await rig.ask(call(1, "read", b"Authorization: Bearer x"))).status == 200


async def test_what_the_client_framed_is_framed_anew(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, reply(result("ok"))) as rig:
        body = call().partition(b"\r\n\r\n")[2]
        head = b"POST /mcp?q=1 HTTP/1.1\r\nHost: kept.example\r\nTransfer-Encoding: chunked\r\nAccept-Encoding: gzip\r\nRange: bytes=0-1\r\nTE: x\r\n\r\n"
        answer = await rig.ask(head + b"%x\r\n%b\r\n%x;x=y\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (3, body[:3], len(body) - 3, body[3:]))
        assert answer.body == result("ok")
        [asked] = rig.server.asked
        assert asked.body == body
        first, *fields = asked.head.lower().strip().split(b"\r\n")
        assert first == b"post /mcp?q=1 http/1.1" and b"host: kept.example" in fields and b"content-length: %d" % len(body) in fields
        assert not any(name in asked.head.lower() for name in (b"transfer-encoding", b"accept-encoding", b"range", b"te:", b"x-trailer"))


async def test_one_exchange_is_the_same_split_at_every_point(tmp_path: Path) -> None:
    raw = call(1, "read", b"X: y")
    async with gate(tmp_path, QUICK) as rig:
        rig.server.answers = [reply(result("ok")) for _ in raw] + [chunked(result("ok")[:9], result("ok")[9:])]
        client = await rig.client()
        for cut in range(1, len(raw)):
            await client.send(raw[:cut])
            await asyncio.sleep(0)
            await client.send(raw[cut:])
            assert (await client.response()).body == result("ok"), cut
        assert len({asked.body for asked in rig.server.asked}) == 1


async def test_an_answer_is_the_same_split_at_every_point(tmp_path: Path) -> None:
    raw = chunked(result("ok")[:9], result("ok")[9:])
    cuts = iter(range(1, len(raw)))

    async def split(_server: object, _reader: object, writer: asyncio.StreamWriter) -> None:
        cut = next(cuts)
        writer.write(raw[:cut])
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(raw[cut:])

    async with gate(tmp_path, QUICK, *[split] * (len(raw) - 1)) as rig:
        client = await rig.client()
        for cut in range(1, len(raw)):
            await client.send(call())
            assert (await client.response()).body == result("ok"), cut


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, *[reply(result(str(number), number)) for number in range(5)]) as rig:
        client = await rig.client()
        await client.send(b"".join(call(number, n=number) for number in range(5)))
        assert [(await client.response()).json["id"] for _ in range(5)] == [0, 1, 2, 3, 4]


async def test_garbage_pipelined_behind_a_request_never_reaches_the_server(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, reply(result("ok"))) as rig:
        client = await rig.client()
        await client.send(call() + b"GET /x HTTP/1.1\nHost: smuggled\n\n")
        await client.rest()
        assert not any(b"smuggled" in asked.head + asked.body for asked in rig.server.asked)


async def test_100_continue_is_said_by_the_gate_and_not_passed_on(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, reply(result("ok"))) as rig:
        head, _, body = call(1, "read", b"Expect: 100-continue").partition(b"\r\n\r\n")
        client = await rig.client()
        await client.send(head + b"\r\n\r\n")
        assert (await client.response(bodiless=True)).status == 100
        await client.send(body)
        assert (await client.response()).body == result("ok")
        assert b"expect" not in rig.server.asked[0].head.lower()


async def test_interim_responses_are_not_passed_on(tmp_path: Path) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with gate(tmp_path, QUICK, interim + reply(result("ok"))) as rig:
        assert (await rig.ask(call())).body == result("ok")


async def test_head_is_answered_without_a_body(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n") as rig:
        client = await rig.client()
        await client.send(b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.rest()).endswith(b"\r\n\r\n")


async def test_more_connections_than_the_bound_are_closed(tmp_path: Path) -> None:
    policy = Policy(bounds=Bounds(connections=1), escrow=Escrow())
    async with gate(tmp_path, policy, reply(result("ok"))) as rig:
        first = await rig.client()
        await first.send(call())
        assert (await first.response()).status == 200
        second = await rig.client()
        assert await second.rest() == b""


async def test_a_server_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK) as rig:
        rig.server.port = 1
        answer = await rig.ask(call())
        assert answer.json["error"]["code"] == -32093 and answer.json["id"] == 1


async def test_a_locked_server_is_not_reached_by_what_passes_without_being_mcp(tmp_path: Path) -> None:
    async with gate(tmp_path) as rig:
        rig.server.answers = [reply(b"fine", kind=b"text/plain"), reply(b"fine", kind=b"text/plain")]
        asked = b"GET /health?d=secret HTTP/1.1\r\nHost: gate\r\n\r\n"
        assert (await rig.ask(asked)).status == 200
        await rig.custody.lock("alice", "an incident")
        refused = await rig.ask(asked)
        assert refused.status == 503 and b"locked" in refused.body and len(rig.server.asked) == 1
