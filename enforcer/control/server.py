"""The daemon's end of the control socket: who asks, is it a command, and the answer on its way."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from pydantic import ValidationError

from enforcer.control import asks
from enforcer.control.people import People, Unfit, name_of, peer_uid
from enforcer.control.tokens import TokensFailed
from enforcer.custody import StoreFailed, record_json
from escrow.gate import DecisionRefused
from escrow.redact import NothingToRedact

_MAX_LINE = 1 << 20


class ControlServer:
    """Serves people: root, and the user it was started by."""

    def __init__(self, people: People, allowed_uids: frozenset[int]) -> None:
        self._people, self._allowed = people, allowed_uids
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_MAX_LINE)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            uid = peer_uid(writer.get_extra_info("socket"))
            if uid not in self._allowed:
                return
            async with asyncio.timeout(10):
                line = await reader.readuntil(b"\n")
            try:
                ask = asks.ANY.validate_json(line)
            except ValidationError as error:
                await _say(writer, {"refused": "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())[:2000]})
                return
            if isinstance(ask, asks.Watch) or (isinstance(ask, asks.Verdicts) and ask.follow):
                await self._follow(ask, reader, writer)
                return
            try:
                await _say(writer, {"value": await self._people.answer(ask, name_of(uid))})
            except KeyError:
                await _say(writer, {"refused": "there is no such token" if isinstance(ask, asks.TokenRevoke) else "there is no such item"})
            except (DecisionRefused, NothingToRedact, StoreFailed, TokensFailed, Unfit) as error:
                await _say(writer, {"refused": str(error)})
        except (TimeoutError, ConnectionError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _follow(self, ask: asks.Watch | asks.Verdicts, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        custody = self._people.custody
        queue = custody.follow()
        gone = asyncio.ensure_future(reader.read(1))
        try:
            while not gone.done():
                getting = asyncio.ensure_future(queue.get())
                await asyncio.wait({getting, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    return
                record = getting.result()
                if isinstance(ask, asks.Verdicts):
                    await _say(writer, {"value": json.loads(record_json(record))})
                elif record.get("item"):
                    await _say(writer, {"value": (await custody.item(record["item"])).to_json()})
        finally:
            custody.unfollow(queue)
            gone.cancel()


async def _say(writer: asyncio.StreamWriter, value: dict[str, Any]) -> None:
    writer.write(json.dumps(value).encode() + b"\n")
    await writer.drain()
