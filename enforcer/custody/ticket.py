"""Who waits at a held item: the relay's end of the executor."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from enforcer.custody.traffic import Outgoing
from escrow import gate
from escrow.call import Call

if TYPE_CHECKING:
    from enforcer.custody.executor import Executor


class Ticket:
    """A waiter at a held item. The relay awaits `outcome`, then says what became of it. raw: the request that waits, as it goes on once it may."""

    __slots__ = ("_executor", "answer_id", "answered", "call", "item_id", "number", "raw")

    def __init__(self, executor: Executor, item_id: str, number: int, answer_id: int | str | None, call: Call | None, raw: bytes) -> None:
        self.item_id, self.number, self.answer_id, self.call, self.raw = item_id, number, answer_id, call, raw
        self._executor = executor
        self.answered: asyncio.Future[Outgoing] = asyncio.get_running_loop().create_future()

    async def outcome(self) -> Outgoing:
        return await asyncio.shield(self.answered)

    async def delivered(self) -> None:
        """The client has all of it; or, of a held request: it goes to the server now. Raises StoreFailed for the latter: then it must not."""
        running = self.answered.result().proceed if self.answered.done() else None
        if running is not None:
            await self._executor.go_on(self, running)
        else:
            await self._executor.fact(self.item_id, gate.Delivered(self.number, time.time()))

    async def failed(self) -> None:
        """The connection broke, before or while the answer was sent."""
        await self._executor.fact(self.item_id, gate.WaiterLeft(self.number))
