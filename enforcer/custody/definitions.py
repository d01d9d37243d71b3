"""Tool definitions: trusted on first use where the judges find them clean, held when they change, cut to what the policy allows."""

from __future__ import annotations

import json
import time
from typing import Any

from enforcer.custody.custodian import StoreThread
from enforcer.custody.traffic import Arrival
from escrow import jsonrpc
from escrow.tools import definitions, judge_tools
from escrow.verdict import Verdict

Listed = list[tuple[str, str, str]]


class Definitions:
    """What is trusted of one server's tools."""

    def __init__(self, server: str, store: StoreThread) -> None:
        self._server, self._store = server, store
        self._trusted: tuple[frozenset[tuple[str, str]], bool] = (frozenset(), False)

    async def open(self) -> None:
        self._trusted = await self._store(self._store.store.trusted, self._server)

    @staticmethod
    def listed(arrival: Arrival) -> bool:
        """Whether it is a list of tools."""
        message = arrival.message
        return isinstance(message, jsonrpc.Response) and not message.is_error and arrival.call is not None and arrival.call.method == "tools/list"

    def judge(self, value: Any) -> Verdict:
        return judge_tools(value, *self._trusted)

    def known(self, value: Any) -> bool:
        """Whether every definition stands trusted already, so that nothing is to be written."""
        trusted, complete = self._trusted
        return complete and {(name, digest) for name, digest, _ in definitions(value)} <= trusted

    async def trust_first(self, value: Any) -> bool:
        """Trust what a clean first listing offers. Whether that could be recorded."""
        if self.known(value):
            return True
        found = definitions(value)
        last = not (isinstance(value, dict) and value.get("nextCursor"))
        try:
            await self._store(self._store.store.offer, self._server, found, time.time())
            await self._store(self._store.store.trust, self._server, found, "first use", time.time(), last)
            await self.open()
        except Exception:
            return False
        return True

    async def hold(self, value: Any) -> None:
        """A list is being held: what it offers can be looked at, and is trusted by approving it."""
        await self._store(self._store.store.offer, self._server, definitions(value), time.time())

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
        await self._store(self._store.store.trust, self._server, chosen, by, time.time(), True)
        await self.open()
        return len(chosen)

    async def shown(self) -> list[dict[str, Any]]:
        return await self._store(self._store.store.tools, self._server)


def without(message: jsonrpc.Response, denied: set[str]) -> jsonrpc.Response:
    """A tools/list without the named tools: what clients may not call they are not shown."""
    value = message.value
    kept = [tool for tool in value["tools"] if not (isinstance(tool, dict) and tool.get("name") in denied)]
    cut = {**value, "tools": kept}
    raw = json.dumps({"jsonrpc": "2.0", "id": message.id, "result": cut}, separators=(",", ":")).encode()
    return jsonrpc.Response(message.id, cut, False, raw)
