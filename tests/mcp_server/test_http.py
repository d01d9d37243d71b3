"""The window's HTTP, as strangers meet it: what is refused before MCP, and what each connection may cost."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from escrow.supervisor.wire import AUTHENTICATE, Refusal
from mcp_server import guard, listening
from mcp_server.link import Caller, Refused

pytestmark = pytest.mark.anyio


class Daemon:
    """Knows one token; remembers what it was asked. slow: never answers a tool."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Caller]] = []
        self.slow = False

    async def ask(self, tool: str, arguments: dict[str, Any], caller: Caller) -> dict[str, Any]:
        self.asked.append((tool, caller))
        if caller.token != "good":
            raise Refused(Refusal(code="token", text="the token is unknown"))
        if self.slow and tool != AUTHENTICATE:
            await asyncio.Event().wait()
        return {}


class Window:
    def __init__(self, daemon: Daemon, port: int) -> None:
        self.daemon, self.port = daemon, port

    async def raw(self, request: bytes) -> tuple[int, dict[str, str]]:
        """The status and the headers of the answer; (0, {}) where the connection was just closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        async with asyncio.timeout(10):
            try:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return 0, {}
            finally:
                writer.close()
        return int(head[0].split()[1]), {key.lower(): value for key, _, value in (row.partition(": ") for row in head[1:] if row)}

    async def post(self, body: bytes = b"{}", *headers: str, path: str = "/mcp", method: str = "POST", host: str = "127.0.0.1") -> tuple[int, dict[str, str]]:
        head = [f"{method} {path} HTTP/1.1", f"Host: {host}:{self.port}", "Content-Type: application/json", "Accept: application/json, text/event-stream"]
        return await self.raw("\r\n".join([*head, *headers, f"Content-Length: {len(body)}", "", ""]).encode() + body)


@asynccontextmanager
async def serving() -> AsyncIterator[Window]:
    daemon = Daemon()
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        server = uvicorn.Server(listening.config(listening.application(daemon, "127.0.0.1")))
        task = asyncio.ensure_future(server.serve(sockets=[listener]))
        yield Window(daemon, listener.getsockname()[1])
        server.should_exit = True
        await task


GOOD = "Authorization: Bearer good"


async def test_only_the_endpoint_and_only_posts_and_no_browser() -> None:
    async with serving() as window:
        for path in ("/", "/mcp/", "/mcp/../mcp", "/MCP"):
            assert (await window.post(b"", GOOD, path=path))[0] == 404
        for method in ("GET", "DELETE", "OPTIONS"):
            assert (await window.post(b"", GOOD, method=method))[0] == 405
        assert (await window.post(b"{}", GOOD, "Origin: http://127.0.0.1"))[0] == 403
        assert window.daemon.asked == []
        assert (await window.post(b"{}", GOOD, host="attacker.example"))[0] == 421
        assert (await window.post(b"{}", GOOD))[0] == 400, "a good token and no message"


@pytest.mark.parametrize(
    "headers",
    [(), ("Authorization: Basic good",), ("Authorization: Bearer",), ("Authorization: Bearer goo",), (GOOD, GOOD), ("Authorization: Bearer " + "x" * 600,),
     ("Authorization: Bearer g\xf6\xf6d",)],
)  # fmt: skip
async def test_without_one_good_token_the_body_is_not_looked_at(headers: tuple[str, ...]) -> None:
    async with serving() as window:
        status, answer = await window.post(b"not even json", *headers)
        assert status == 401 and answer["www-authenticate"].startswith('Bearer realm="holdfast"')
        assert [tool for tool, _ in window.daemon.asked] == [AUTHENTICATE]


@pytest.mark.parametrize("word", ["Bearer", "bearer", "BEARER "])
async def test_the_scheme_is_read_in_any_case_and_the_ends_are_the_kernels(word: str) -> None:
    async with serving() as window:
        await window.post(b"{}", f"Authorization: {word} good", "X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9")
        _, caller = window.daemon.asked[0]
        assert caller.token == "good" and caller.own == ("127.0.0.1", window.port)
        assert caller.peer is not None and caller.peer[0] == "127.0.0.1", "never what a header says"


async def test_a_body_too_long_is_refused() -> None:
    async with serving() as window:
        assert (await window.post(b"x" * (listening.BODY_BYTES + 1), GOOD))[0] == 413
        assert (await window.raw(f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{GOOD}\r\nContent-Length: {1 << 30}\r\n\r\n".encode()))[0] in (413, 421)


async def test_a_request_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "REQUEST_S", 0.3)
    async with serving() as window:
        assert (await window.raw(f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{window.port}\r\n{GOOD}\r\nContent-Length: 100\r\n\r\n{{".encode()))[0] == 408
        window.daemon.slow = True
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "get_status", "arguments": {}}}
        assert (await window.post(json.dumps(call).encode(), GOOD, "MCP-Protocol-Version: 2025-11-25"))[0] == 408


@pytest.mark.parametrize("sent", [b"", b"POST /mcp HTTP/1.1\r\nHost: x\r\n", b"POST /mcp HTTP/1.1\r\nX: "])
async def test_a_connection_that_never_asks_is_closed(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(listening, "SILENT_S", 0.2)
    async with serving() as window, asyncio.timeout(10):
        assert (await window.raw(sent))[0] == 0
        assert (await window.post())[0] == 401, "others go on"


async def test_there_are_only_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 5)
    async with serving() as window, asyncio.timeout(10):
        idle = [await asyncio.open_connection("127.0.0.1", window.port) for _ in range(5)]
        assert (await window.post())[0] in (0, 503)
        for _, writer in idle:
            writer.close()
        while (await window.post())[0] != 401:
            pass


BODIES = [
    b"", b"{}", b"[]", b"null", b"\x00", b"\xff\xfe", b"[" * 100_000, b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}',
    b'{"jsonrpc":"2.0","id":{},"method":"ping"}', b'{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/list","method":"ping"}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\\ud800","arguments":{"a":"\\ud800"}}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lock","arguments":' + b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"}}",
    b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///etc/passwd"}}',
]  # fmt: skip


@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
async def test_whatever_the_holder_of_a_token_sends_the_window_goes_on(version: str) -> None:
    async with serving() as window:
        for body in BODIES:
            status, _ = await window.post(body, GOOD, f"MCP-Protocol-Version: {version}")
            assert 200 <= status < 600, body[:80]
        ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode()
        assert (await window.post(ping, GOOD, "MCP-Protocol-Version: 2025-06-18"))[0] == 200
