"""Calls on their way through the server, by what makes a later one the same call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from enforcer.custody.traffic import Running
from escrow.call import Call


class UnderWay:
    """See the module. Those of one identity in the order in which they began."""

    def __init__(self, began: Callable[[Call], None] = lambda call: None) -> None:
        """began: told of each call that begins."""
        self._running: dict[tuple[str, ...], list[Running]] = {}
        self._began = began

    def __iter__(self) -> Iterator[Running]:
        return (running for siblings in self._running.values() for running in siblings)

    def begin(self, call: Call) -> Running:
        running = Running(call)
        self.enter(running)
        return running

    def enter(self, running: Running) -> None:
        self._began(running.call)
        siblings = self._running.get(running.call.identity)
        if siblings is None:
            self._running[running.call.identity] = [running]
        else:
            siblings.append(running)

    def has_orphan(self, call: Call) -> bool:
        """Whether the same call runs on after its client left."""
        siblings = self._running.get(call.identity)
        return siblings is not None and any(running.orphaned for running in siblings)

    def leave(self, call: Call) -> None:
        """Its client left, and did not cancel it by that: the same call made again waits for this one."""
        for running in self._running.get(call.identity, ()):
            if running.call is call:
                running.orphaned = True

    def is_left(self, call: Call) -> bool:
        """Whether its client left."""
        return any(running.orphaned for running in self._running.get(call.identity, ()) if running.call is call)

    async def left_behind(self, call: Call) -> str | None:
        """Wait for the same calls that run on without their clients; the id of the item that one of them leaves."""
        for running in tuple(self._running.get(call.identity, ())):
            if running.orphaned and not running.asked_client and not running.over:
                if running.settled is None:
                    running.settled = asyncio.get_running_loop().create_future()
                if (left := await asyncio.shield(running.settled)) is not None:
                    return left
        return None

    def settle(self, running: Running, item_id: str | None = None) -> None:
        """The call is over: it left an item, or nothing."""
        if running.over:
            return
        running.over = True
        if running.on_over is not None:
            running.on_over()
        if running.settled is not None and not running.settled.done():
            running.settled.set_result(item_id)
        siblings = self._running.get(running.call.identity)
        if siblings is not None and running in siblings:
            siblings.remove(running)
            if not siblings:
                del self._running[running.call.identity]

    def cancelled(self, call: Call) -> None:
        """Its client cancelled it: it may never be answered, so nobody is to wait for it."""
        for running in list(self._running.get(call.identity, ())):
            if running.call is call:
                self.settle(running)
