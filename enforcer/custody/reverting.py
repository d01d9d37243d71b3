"""The way back of a call: a clone of the state taken before it goes to the server, settled when its answer comes, and kept with an item that holds it.

A clone tells what one call did only where no other call that may write ran at the same time: then there is no way back, and the item says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from escrow.call import Call
from escrow.sandbox.effects import Write

Verb = Literal["take", "settle", "plan", "revert", "forget"]
NOBODY: Final = "no twin runs here"


@dataclass(frozen=True, slots=True)
class Answer:
    """token: of a clone that was taken. why: what went wrong, in our words; "" where nothing did. done: the state is as before the call.

    changes: what putting it back would change, or did, paths as the host has them; more: how many are left out.
    """

    token: str | None = None
    why: str = ""
    changes: tuple[Write, ...] = ()
    more: int = 0
    done: bool = False


class Clones(Protocol):
    """Who keeps clones of servers' state."""

    async def __call__(self, server: str, verb: Verb, token: str) -> Answer:
        """Never raises, and in bounded time."""


@dataclass(slots=True)
class _Clone:
    call: Call
    alone: bool
    token: str = ""
    settling: asyncio.Task[str] | None = None


class Reverting:
    """See the module. clones: None where nobody keeps any. running: the calls under way. writes: whether a call may write."""

    def __init__(self, clones: Callable[[], Clones | None], running: Callable[[], Iterable[Call]], writes: Callable[[Call], bool]) -> None:
        self._clones, self._running, self._writes = clones, running, writes
        self._kept: dict[int, _Clone] = {}
        self._forgetting: set[asyncio.Task[Answer]] = set()

    def began(self, call: Call) -> None:
        """Another call goes on its way."""
        if self._kept and self._writes(call):
            for clone in self._kept.values():
                clone.alone = clone.alone and (clone.call is call or clone.call.server != call.server)

    def busy(self, server: str) -> bool:
        """Whether a call that may write is under way there."""
        return any(call.server == server and self._writes(call) for call in self._running())

    async def take(self, call: Call) -> str:
        """Before it goes to the server. Why there is no clone; "" where there is."""
        if (clones := self._clones()) is None:
            return NOBODY
        others = [other for other in self._running() if other is not call and other.server == call.server]
        clone = self._kept[id(call)] = _Clone(call, alone=not any(self._writes(other) for other in others))
        answer = await clones(call.server, "take", "")
        if answer.token is None:
            del self._kept[id(call)]
            return answer.why or "no clone could be kept"
        clone.token = answer.token
        return ""

    def answered(self, call: Call) -> None:
        """Its answer came: what the state is now is what it did."""
        clone, clones = self._kept.get(id(call)), self._clones()
        if clone is not None and clones is not None and clone.settling is None:
            clone.settling = asyncio.get_running_loop().create_task(_settle(clones, clone))

    async def settled(self, call: Call) -> tuple[str | None, str]:
        """The token of its clone, which is its item's from now on, or None and why."""
        clone = self._kept.get(id(call))
        if clone is None or clone.settling is None:
            return None, ""
        why = await clone.settling
        self._kept.pop(id(call), None)
        if not clone.alone:
            why = "another call that may write ran at the same time: what each did cannot be told apart"
        if why:
            self.forget(call.server, clone.token)
            return None, why
        return clone.token, ""

    def over(self, call: Call) -> None:
        """It is over, and no item holds what it did."""
        if (clone := self._kept.pop(id(call), None)) is not None and clone.token:
            self.forget(call.server, clone.token, clone.settling)

    def forget(self, server: str, token: str, settling: asyncio.Task[str] | None = None) -> None:
        """Nobody will put it back."""
        if (clones := self._clones()) is not None:
            task = asyncio.get_running_loop().create_task(_forget(clones, server, token, settling))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)

    async def ask(self, server: str, verb: Verb, token: str) -> Answer:
        """Of an item's clone."""
        clones = self._clones()
        return Answer(why=NOBODY) if clones is None else await clones(server, verb, token)


async def _settle(clones: Clones, clone: _Clone) -> str:
    return (await clones(clone.call.server, "settle", clone.token)).why


async def _forget(clones: Clones, server: str, token: str, settling: asyncio.Task[str] | None) -> Answer:
    if settling is not None:
        await settling
    return await clones(server, "forget", token)
