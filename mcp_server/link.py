"""The window's end of its socket to the daemon: one question, one answer, many at a time."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any, Protocol

from escrow.supervisor.wire import MAX_ANSWER_BYTES, MAX_QUESTION_BYTES, Question, Refusal, Reply, Socket

ANSWER_S = 140.0
"""Longer than anything the daemon takes."""


class Refused(Exception):
    """The daemon says no. `refusal` says what kind of no, in its own words."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as the window can see: the bearer token (empty without one) and both ends of the connection."""

    token: str
    peer: Socket | None
    own: Socket | None


class Asker(Protocol):
    """Something that answers like the daemon."""

    async def ask(self, tool: str, arguments: dict[str, Any], caller: Caller) -> dict[str, Any]:
        """Raises Refused."""


class Link:
    """ended: set once the daemon is gone, or does not speak as it should: nothing can be answered any more."""

    def __init__(self, daemon: socket.socket) -> None:
        self.ended = asyncio.Event()
        self._socket = daemon
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._next_id = 0
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._socket.setblocking(False)
        reader, self._writer = await asyncio.open_unix_connection(sock=self._socket, limit=MAX_ANSWER_BYTES + 4096)
        self._reading = asyncio.ensure_future(self._read(reader))

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.close()

    async def ask(self, tool: str, arguments: dict[str, Any], caller: Caller) -> dict[str, Any]:
        """Raises Refused, also where the daemon does not answer."""
        if self._writer is None or self.ended.is_set():
            raise Refused(_GONE)
        self._next_id += 1
        try:
            question = Question(id=self._next_id, tool=tool, arguments=arguments, token=caller.token, peer=caller.peer, own=caller.own)
            line = question.model_dump_json().encode() + b"\n"
        except ValueError:  # a name too long, lone surrogates, nested too deeply
            raise Refused(Refusal(code="unfit", text="the call cannot be put to the daemon as it is")) from None
        if len(line) > MAX_QUESTION_BYTES:
            raise Refused(Refusal(code="unfit", text="the call is too long"))
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[question.id] = future
        try:
            self._writer.write(line)
            async with asyncio.timeout(ANSWER_S):
                await self._writer.drain()
                reply = await future
        except (TimeoutError, OSError):
            raise Refused(_GONE) from None
        finally:
            del self._waiting[question.id]
        if reply.refusal is not None or reply.value is None:
            raise Refused(reply.refusal or _GONE)
        return reply.value

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                reply = Reply.model_validate_json(line)
                if (future := self._waiting.get(reply.id)) is not None and not future.done():
                    future.set_result(reply)
        except (ValueError, OSError):
            pass
        finally:
            self.ended.set()
            for future in self._waiting.values():
                if not future.done():
                    future.set_result(Reply(id=0, refusal=_GONE))


_GONE = Refusal(code="failed", text="the daemon does not answer")
