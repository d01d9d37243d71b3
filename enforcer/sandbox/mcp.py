"""MCP over a twin's stdio: newline-delimited JSON-RPC (MCP 2025-11-25, basic/transports, "stdio"; 2026-07-28 has the same framing).

What a twin writes is untrusted: lines and their sum are bounded, and nothing of it stands in an error.
"""

from __future__ import annotations

import asyncio
import json

SESSION_ERA = "2025-11-25"
STATELESS_ERA = "2026-07-28"
OWN = {"name": "holdfast-sandbox", "version": "1"}
METHOD_NOT_FOUND = -32601


class Silent(Exception):
    """The twin's process ended, or said what is no MCP, or too much. `str()` says which, in our words."""


class Conversation:
    """The client's side of one twin's stdio."""

    def __init__(self, writer: asyncio.StreamWriter, reader: asyncio.StreamReader, answer_bytes: int) -> None:
        self._writer = writer
        self._reader = reader
        self._left = answer_bytes

    async def hello(self) -> str:
        """Open the conversation in the era that the server speaks. Returns that era."""
        said = await self.ask({"method": "initialize", "params": {"protocolVersion": SESSION_ERA, "capabilities": {}, "clientInfo": OWN}})
        if "result" in said:
            await self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
            return SESSION_ERA
        meta = {
            "io.modelcontextprotocol/protocolVersion": STATELESS_ERA,
            "io.modelcontextprotocol/clientInfo": OWN,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        said = await self.ask({"method": "server/discover", "params": {"_meta": meta}})
        if "result" not in said:
            raise Silent("the server answers neither initialize nor server/discover")
        return STATELESS_ERA

    async def ask(self, request: dict[str, object]) -> dict[str, object]:
        """Send a request of our own, and read its answer."""
        name = f"holdfast-{request['method']}"
        return _object(await self.call(json.dumps({"jsonrpc": "2.0", "id": name, **request}).encode(), name)) or {}

    async def call(self, request: bytes, name: str | int) -> bytes:
        """Send a request as it is and return the response to its id, as the twin sent it. Silent where none comes."""
        self._writer.write(request.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n")
        await self._drain()
        while True:
            line = await self._line()
            message = _object(line)
            if message is None:
                raise Silent("the twin wrote a line that is no JSON-RPC message")
            if "method" not in message and message.get("id") == name and type(message.get("id")) is type(name):
                return line
            if "method" in message and "id" in message:
                await self._refuse(message)

    async def _refuse(self, message: dict[str, object]) -> None:
        """A server's own request to its client: a ping is answered, all else this client does not have."""
        reply: dict[str, object] = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] == "ping":
            await self._send({**reply, "result": {}})
        else:
            await self._send({**reply, "error": {"code": METHOD_NOT_FOUND, "message": "not supported"}})

    async def _send(self, message: dict[str, object]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")
        await self._drain()

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except ConnectionError:
            raise Silent("the twin's process ended") from None

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            raise Silent("the twin wrote more than answer_bytes") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Silent("the twin's process ended") from None
        self._left -= len(line)
        if self._left < 0:
            raise Silent("the twin wrote more than answer_bytes")
        return line.rstrip(b"\r\n")


def _object(line: bytes) -> dict[str, object] | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
