"""Tool definitions: trusted on first use where the judges find them clean, held when they change, cut to what the policy allows."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from enforcer.custody.custodian import StoreThread
from enforcer.custody.records import Records
from enforcer.custody.traffic import Arrival
from escrow import jsonrpc
from escrow.call import NO_ARGUMENTS
from escrow.tools import definitions, judge_tools
from escrow.verdict import Finding, Verdict

Listed = list[tuple[str, str, str]]


class Definitions:
    """What is trusted of one server's tools."""

    def __init__(self, server: str, store: StoreThread, records: Records) -> None:
        self._server, self._store, self._records = server, store, records
        self._trusted: tuple[frozenset[tuple[str, str]], bool] = (frozenset(), False)
        self._first = asyncio.Lock()

    async def open(self) -> None:
        self._trusted = await self._store(self._store.store.trusted, self._server)

    def judge(self, message: jsonrpc.Message, begins: bool) -> Verdict:
        """begins: it is a listing's first page, which brings nothing new once anything is trusted, though the first listing never ended."""
        trusted, complete = self._trusted
        return judge_tools(_value(message), trusted, complete or (begins and bool(trusted)))

    def known(self, message: jsonrpc.Message) -> bool:
        """Whether every definition stands trusted already, so that nothing is to be written."""
        trusted, complete = self._trusted
        return complete and {(name, digest) for name, digest, _ in definitions(_value(message))} <= trusted

    async def trust_first(self, message: jsonrpc.Message, begins: bool) -> bool:
        """Trust what a clean first listing offers, unless another was trusted meanwhile. Whether that could be recorded."""
        async with self._first:
            if self.judge(message, begins).finding is not Finding.CLEAN:
                return False
            return self.known(message) or await self._trust_now(_value(message))

    async def _trust_now(self, value: Any) -> bool:
        found = definitions(value)
        last = not (isinstance(value, dict) and value.get("nextCursor"))
        try:
            await self._store(self._store.store.offer, self._server, found, time.time())
            await self._records.trusted(self._server, found, "first use")
            await self._store(self._store.store.trust, self._server, found, "first use", time.time(), last)
            await self.open()
        except Exception:
            return False
        return True

    async def hold(self, message: jsonrpc.Message) -> None:
        """A list is being held: what it offers can be looked at, and is trusted by approving it."""
        await self._store(self._store.store.offer, self._server, definitions(_value(message)), time.time())

    async def approved(self, released: bytes, by: str) -> None:
        """A held list was approved: what is released of it is trusted."""
        await self.trust(by, definitions(jsonrpc.parse(released).get("result")))

    async def shredded(self, raw: bytes) -> None:
        """A list is to be destroyed: what it alone offered goes too."""
        found = [(name, digest) for name, digest, _ in definitions(jsonrpc.parse(raw).get("result"))]
        await self._store(self._store.store.withdraw, self._server, found)

    async def trust(self, by: str, tools: Listed | None = None) -> int:
        """Trust the given definitions, or those last offered. Returns how many."""
        chosen = await self._store(self._store.store.offered, self._server) if tools is None else tools
        await self._records.trusted(self._server, chosen, by)
        await self._store(self._store.store.trust, self._server, chosen, by, time.time(), True)
        await self.open()
        return len(chosen)

    async def shown(self) -> list[dict[str, Any]]:
        return await self._store(self._store.store.tools, self._server)


def begins(arrival: Arrival) -> bool:
    """Whether it answers a request without a cursor."""
    return arrival.call is not None and arrival.call.args_sha256 == NO_ARGUMENTS


def listed(arrival: Arrival) -> bool:
    """Whether it is a list of tools."""
    message = arrival.message
    return isinstance(message, jsonrpc.Response) and not message.is_error and arrival.call is not None and arrival.call.method == "tools/list"


def _value(message: jsonrpc.Message) -> Any:
    return message.value if isinstance(message, jsonrpc.Response) else None


def without(message: jsonrpc.Message, denied: Callable[[str], str | None]) -> jsonrpc.Message:
    """A list of tools without those that are denied: what clients may not call they are not shown."""
    value = _value(message)
    tools = value.get("tools") if isinstance(value, dict) else None
    if not isinstance(message, jsonrpc.Response) or not isinstance(tools, list):
        return message
    kept = [tool for tool in tools if not (isinstance(tool, dict) and isinstance(name := tool.get("name"), str) and denied(name))]
    if len(kept) == len(tools):
        return message
    cut = {**value, "tools": kept}
    return jsonrpc.Response(message.id, cut, False, json.dumps({"jsonrpc": "2.0", "id": message.id, "result": cut}, separators=(",", ":")).encode())
