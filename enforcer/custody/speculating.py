"""Runs of calls in twins, beside the calls themselves: begun before a call goes on, asked before it may, or once its result is there.

What runs in a twin is the business of whoever is the `Speculator` (`enforcer.sandbox`); custody knows that a run ends, and how it is judged. A
speculation stands and falls with its call: whatever becomes of that, it is discarded once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from escrow.call import Call, Transport
from escrow.policy import ToolRules
from escrow.sandbox import judge
from escrow.sandbox.effects import NO_EFFECTS
from escrow.sandbox.report import report
from escrow.sandbox.run import Run
from escrow.verdict import Verdict, unsure

MOST = 1024
"""Runs kept at once; a call beyond has none, and is UNSURE."""

STREAMED_S = 600.0
"""How long a run waits for a result that comes on another connection (the HTTP+SSE pair)."""


class Speculation(Protocol):
    """A run under way. Never raises, and ends in bounded time."""

    async def ran(self) -> Run:
        """How it ended; the same each time."""

    def discard(self) -> None:
        """Nobody wants it any more. Nothing happens where it has ended."""


class Speculator(Protocol):
    """Who runs calls in twins."""

    async def freeze(self, call: Call, raw: bytes, rules: ToolRules) -> Speculation:
        """Freeze the state and begin. Returns once the real call may go on; never raises, and in bounded time."""


def sandboxed(call: Call | None, rules: ToolRules) -> bool:
    """Whether the policy names the judge for this call."""
    return "sandbox" in rules.judges and call is not None and call.method == "tools/call"


class Speculating:
    """See the module. speculator: None where this instance has no twins. dropped: told of each call whose run is not wanted any more."""

    def __init__(self, speculator: Callable[[], Speculator | None], dropped: Callable[[Call], None] = lambda call: None) -> None:
        self._speculator, self._dropped = speculator, dropped
        self._runs: dict[int, tuple[Call, Speculation]] = {}
        """By the identity of the call as an object: two calls of one client may be equal in everything."""

    def close(self) -> None:
        for call, _ in tuple(self._runs.values()):
            self.drop(call)

    async def begin(self, call: Call, raw: bytes, rules: ToolRules) -> Callable[[], None]:
        """Freeze, and run. Returns what is to be called when the call is over."""
        speculator = self._speculator()
        if speculator is not None and len(self._runs) < MOST:
            self._runs[id(call)] = call, await speculator.freeze(call, raw, rules)
        return partial(self._over, call)

    async def before(self, call: Call, rules: ToolRules) -> tuple[Verdict, str]:
        """The verdict on what a call would do, and the run as a report for people."""
        return await self._judged(call, rules, None, partial(judge.before, rules=rules))

    async def after(self, call: Call, answer: bytes, rules: ToolRules) -> tuple[Verdict, str]:
        """The verdict on a call's result beside its run's. answer: the real one."""
        return await self._judged(call, rules, answer, lambda run: judge.after(run, answer, rules, frozenset(run.learned)))

    async def _judged(self, call: Call, rules: ToolRules, answer: bytes | None, judging: Callable[[Run], Verdict]) -> tuple[Verdict, str]:
        started = time.monotonic()
        run = await self._ran(call)
        try:
            # It grows with answers and effects: not in the loop that everybody waits for.
            verdict = await asyncio.to_thread(judging, run)
            return verdict, await asyncio.to_thread(report, run, verdict, rules, answer)
        except Exception as error:
            took_ms = (time.monotonic() - started) * 1000
            verdict = unsure("sandbox", "sandbox.failed", f"The run could not be judged ({type(error).__name__}).", took_ms)
            told = replace(run, outcome="failed", answer=None, effects=NO_EFFECTS, why=verdict.reasons[0].text)
            return verdict, report(told, verdict, rules)

    def drop(self, call: Call) -> None:
        """Its run is not wanted any more."""
        self._dropped(call)
        if (found := self._runs.pop(id(call), None)) is not None:
            found[1].discard()

    async def _ran(self, call: Call) -> Run:
        found = self._runs.get(id(call))
        if found is not None:
            return await found[1].ran()
        return Run("absent", why="no twin runs here" if self._speculator() is None else "it was not run in a twin when it went to the server")

    def _over(self, call: Call) -> None:
        if call.transport is Transport.HTTP_SSE and id(call) in self._runs:  # its request was answered, its result is still to come
            asyncio.get_running_loop().call_later(STREAMED_S, self.drop, call)
        else:
            self.drop(call)
