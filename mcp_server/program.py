"""The window's life in two steps, so that whoever starts it can take every right away between them.

`prepare` imports everything, and serves a few requests in memory so that nothing is imported later; what it returns opens nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from mcp.types import LATEST_PROTOCOL_VERSION
from starlette.types import ASGIApp, Message

from escrow.supervisor.wire import Refusal
from mcp_server.guard import PATH
from mcp_server.link import Caller, Link, Refused
from mcp_server.listening import application, config

MOST_FILES = 400
"""Descriptors: connections, and a few of its own."""
MEMORY_BYTES = 2 << 30


def prepare(daemon: socket.socket, listeners: tuple[socket.socket, ...]) -> Callable[[], int]:
    """daemon: SOCK_STREAM to the daemon. listeners: listening already."""
    logging.disable()  # what libraries log of a request may quote a stranger; the daemon counts what is refused
    asyncio.run(_rehearse())
    return lambda: asyncio.run(_serve(daemon, listeners))


async def _serve(daemon: socket.socket, listeners: tuple[socket.socket, ...]) -> int:
    """Until the daemon is gone. Then nothing is left to answer with."""
    link = Link(daemon)
    await link.open()
    server = uvicorn.Server(config(application(link, str(listeners[0].getsockname()[0]))))
    serving = asyncio.ensure_future(server.serve(sockets=list(listeners)))
    ended = asyncio.ensure_future(link.ended.wait())
    await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
    os._exit(0)  # clients that wait are told by their connection's end


class _Rehearsal:
    """A daemon that knows one token."""

    async def ask(self, tool: str, arguments: dict[str, Any], caller: Caller) -> dict[str, Any]:
        if caller.token != "good" or tool == "lock":
            raise Refused(Refusal(code="token" if caller.token != "good" else "scope", text="no"))
        return {"verdicts": [{"id": "1.1"}], "next_cursor": None} if tool == "get_verdicts" else {}


async def _rehearse() -> None:
    """Both eras, good and bad requests: what they import is imported now."""
    app = application(_Rehearsal(), "127.0.0.1")
    config(app).load()
    async with _Lifespan(app):
        for version in ("2025-06-18", LATEST_PROTOCOL_VERSION):
            meta = {"io.modelcontextprotocol/protocolVersion": version, "io.modelcontextprotocol/clientCapabilities": {}}
            implementation = {"name": "rehearsal", "version": "0"}
            for method, params in (
                ("initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": implementation}),
                ("server/discover", {}),
                ("tools/list", {}),
                ("tools/call", {"name": "get_status", "arguments": {}}),
                ("tools/call", {"name": "lock", "arguments": {"why": "\u00fc"}}),
                ("resources/list", {}),
                ("resources/templates/list", {}),
                ("resources/read", {"uri": "holdfast://verdicts/recent"}),
                ("resources/read", {"uri": "holdfast://none"}),
                ("nonsense", {}),
            ):
                for token in ("good", "bad"):
                    await _request(app, version, method, {**params, "_meta": meta}, token)


async def _request(app: ASGIApp, version: str, method: str, params: dict[str, Any], token: str) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    headers = {
        "host": "127.0.0.1:1", "content-type": "application/json", "accept": "application/json, text/event-stream", "authorization": f"Bearer {token}",
        "mcp-protocol-version": version, "mcp-method": method, "content-length": str(len(body)),
    }  # fmt: skip
    if name := params.get("name") or params.get("uri"):
        headers["mcp-name"] = name
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": PATH, "raw_path": PATH.encode(),
        "query_string": b"", "root_path": "", "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
        "client": ("127.0.0.1", 2), "server": ("127.0.0.1", 1),
    }  # fmt: skip
    sent = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if sent:
            return sent.pop()
        await asyncio.sleep(3600)  # cancelled with the request
        raise AssertionError

    async def send(_message: Message) -> None:
        return None

    await app(scope, receive, send)


class _Lifespan:
    """Start-up and shut-down of an ASGI application, around its requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._heard: asyncio.Queue[str] = asyncio.Queue()

    async def __aenter__(self) -> None:
        self._task = asyncio.ensure_future(self._app({"type": "lifespan", "asgi": {"version": "3.0"}}, self._receive, self._send))
        await self._said.put("lifespan.startup")
        await self._heard.get()

    async def __aexit__(self, *_: object) -> None:
        await self._said.put("lifespan.shutdown")
        await self._heard.get()
        await self._task

    async def _receive(self) -> Message:
        return {"type": await self._said.get()}

    async def _send(self, message: Message) -> None:
        await self._heard.put(message["type"])
