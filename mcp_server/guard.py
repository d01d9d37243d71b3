"""What comes before MCP: the path, the method, no browser, and a bearer token that the daemon knows.

A request's body is not read before its token was found good.
"""

from __future__ import annotations

import asyncio
import json

from starlette.types import ASGIApp, Receive, Scope, Send

from escrow.supervisor.wire import AUTHENTICATE, Refusal
from mcp_server.link import Asker, Caller, Refused

PATH = "/mcp"
REQUEST_S = 150.0
"""For one request, from its head to the last byte of its answer."""
CALLER = "holdfast.caller"
"""The scope's key for who asks."""
_MOST_TOKEN = 512


class Guard:
    def __init__(self, app: ASGIApp, daemon: Asker) -> None:
        self._app, self._daemon = app, daemon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # lifespan
            await self._app(scope, receive, send)
        elif scope["path"] != PATH:
            await _say(send, 404, "the MCP endpoint is " + PATH)
        elif scope["method"] != "POST":  # no session to end, no stream that the server would begin
            await _say(send, 405, "only POST", ((b"allow", b"POST"),))
        elif any(name == b"origin" for name, _ in scope["headers"]):  # no supervising agent is a web page (DNS rebinding)
            await _say(send, 403, "not for browsers")
        else:
            await self._authenticated(scope, receive, send)

    async def _authenticated(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = Caller(_bearer(scope), _socket(scope.get("client")), _socket(scope.get("server")))
        try:
            await self._daemon.ask(AUTHENTICATE, {}, caller)
        except Refused as refused:
            await _refuse(send, refused.refusal, bool(caller.token))
            return
        scope[CALLER] = caller
        begun = False

        async def sending(message: object) -> None:
            nonlocal begun
            begun = True
            await send(message)  # type: ignore[arg-type]

        try:
            async with asyncio.timeout(REQUEST_S):
                await self._app(scope, receive, sending)
        except TimeoutError:
            if not begun:
                await _say(send, 408, "the request took too long")


def _bearer(scope: Scope) -> str:
    """The token; empty where there is none, or more than one header."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1:
        return ""
    scheme, _, token = given[0].decode("latin-1").strip().partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and len(token) <= _MOST_TOKEN and token.isascii() and token.isprintable() else ""


def _socket(end: tuple[str, int | None] | None) -> tuple[str, int] | None:
    return None if end is None or end[1] is None else (end[0], end[1])


async def _refuse(send: Send, refusal: Refusal, had_token: bool) -> None:
    match refusal.code:
        case "token":
            challenge = f'Bearer realm="holdfast", error="invalid_token", error_description="{refusal.text}"' if had_token else 'Bearer realm="holdfast"'
            await _say(send, 401, refusal.text, ((b"www-authenticate", challenge.encode("ascii", "replace")),))
        case "rate":
            await _say(send, 429, refusal.text, ((b"retry-after", str(refusal.retry_after_s or 60).encode()),))
        case _:
            await _say(send, 503, refusal.text)


async def _say(send: Send, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body = json.dumps({"error": text}).encode()
    start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})
