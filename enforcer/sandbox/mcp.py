"""MCP over a twin's stdio: newline-delimited JSON-RPC (MCP 2025-11-25, basic/transports, "stdio"; 2026-07-28 has the same framing).

What a twin writes is untrusted: lines and their sum are bounded, and nothing of it stands in an error.
"""

from __future__ import annotations

import asyncio
import json
from enum import StrEnum

OWN = {"name": "holdfast-sandbox", "version": "1"}
METHOD_NOT_FOUND = -32601


class Era(StrEnum):
    """By the MCP version that speaks for it. A server over stdio keeps to the era of its first message, and refuses calls of the other."""

    SESSION = "2025-11-25"
    STATELESS = "2026-07-28"


VERSION = "io.modelcontextprotocol/protocolVersion"
META = {
    VERSION: Era.STATELESS.value,
    "io.modelcontextprotocol/clientInfo": OWN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
"""What each request of the stateless era carries as `params._meta`."""


class Silent(Exception):
    """The twin's process ended, or said what is no MCP, or too much. `str()` says which, in our words."""


class NotSpoken(Exception):
    """The server answered, and not in this era."""


class Conversation:
    """The client's side of one twin's stdio."""

    def __init__(self, writer: asyncio.StreamWriter, reader: asyncio.StreamReader, answer_bytes: int) -> None:
        self._writer = writer
        self._reader = reader
        self._most = self._left = answer_bytes

    def renew(self) -> None:
        """From now on it may write as much as at first."""
        self._left = self._most

    async def hello(self, era: Era) -> None:
        """Open the conversation in one era. NotSpoken where the server does not, Silent."""
        if era is Era.STATELESS:
            said = await self.ask({"method": "server/discover", "params": {"_meta": META}})
            if era.value not in _versions(said):
                raise NotSpoken(f"the server does not speak MCP {era.value}")
            return
        said = await self.ask({"method": "initialize", "params": {"protocolVersion": era.value, "capabilities": {}, "clientInfo": OWN}})
        if "result" not in said:
            raise NotSpoken("the server does not answer initialize, which all sessions begin with")
        await self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def alive(self, era: Era) -> None:
        """Have any answer of it. Silent."""
        await self.ask({"method": "server/discover", "params": {"_meta": META}} if era is Era.STATELESS else {"method": "ping"})

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


def _versions(said: dict[str, object]) -> list[object]:
    """Of an answer to server/discover (MCP 2026-07-28, `DiscoverResult.supportedVersions`)."""
    result = said.get("result")
    found = result.get("supportedVersions") if isinstance(result, dict) else None
    return found if isinstance(found, list) else []
