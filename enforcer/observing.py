"""Observe mode's judging: what the taps saw is judged after the fact, by the gate's own judges, recorded, and shown. Nothing is held.

What was not seen whole is never CLEAN.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from enforcer.custody import Judges
from enforcer.custody.records import Records
from enforcer.evidence import EvidenceError
from enforcer.scanner.pool import WorkerPool
from escrow.events import Direction
from escrow.evidence.entry import Lost
from escrow.flows.messages import Answered, Asked, Message, Plain, Rpc
from escrow.flows.observed import observed
from escrow.trace import Traces
from escrow.verdict import Finding, Verdict, unsure

_MOST_WAITING = 4096
_MOST_WAITING_BYTES = 64 << 20


class Observer:
    """name: whose process it is, for people. content: audit mode: messages themselves go into the log."""

    def __init__(self, judges: Judges, pool: WorkerPool, records: Records, name: Callable[[int | None], str], at_once: int, content: bool) -> None:
        self._judges, self._pool, self._records, self._name, self._content = judges, pool, records, name, content
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(_MOST_WAITING)
        self._waiting_bytes = 0
        self._traces = Traces(lambda: secrets.token_bytes(16))
        self.judged = self.not_judged = self._told = 0
        self._tasks = [asyncio.get_running_loop().create_task(self._judge_on()) for _ in range(at_once)]

    def take(self, message: Message) -> None:
        """A message was seen. Web pages and the like are none of ours."""
        if isinstance(message.content, Plain):
            return
        if self._waiting.full() or self._waiting_bytes + len(message.unit.raw) > _MOST_WAITING_BYTES:
            self.not_judged += 1
            return
        self._waiting_bytes += len(message.unit.raw)
        self._waiting.put_nowait(message)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _judge_on(self) -> None:
        while True:
            message = await self._waiting.get()
            self._waiting_bytes -= len(message.unit.raw)
            verdicts = await self._verdicts(message)
            self.judged += 1
            name = self._name(message.unit.process.pid if message.unit.process is not None else None)
            with suppress(EvidenceError):  # shows in `status`; nothing waits for it
                if self.not_judged > self._told:
                    self._records.overlooked(Lost("observed messages", self.not_judged - self._told, "more came than are judged at once"))
                    self._told = self.not_judged
                self._records.observed(observed(message, verdicts, self._traces, name, content=self._content))

    async def _verdicts(self, message: Message) -> tuple[Verdict, ...]:
        try:
            said = await self._said(message)
        except Exception as error:  # a judge that fails is unsure
            said = unsure("observer", "observer.failed", f"It could not be judged: {type(error).__name__}.")
        if said is None:
            return (unsure("observer", "observer.unreadable", message.why or "It cannot be read in one way only."),)
        if message.complete or said.finding is Finding.HOSTILE:
            return (said,)
        return (said, unsure("observer", "observer.incomplete", message.why))

    async def _said(self, message: Message) -> Verdict | None:
        content = message.content
        if isinstance(content, Rpc):
            to_client = message.unit.direction is Direction.TO_CLIENT
            judge = self._judges.result if to_client or self._judges.request is None else self._judges.request
            return (await judge(content.message)).verdict
        if isinstance(content, Asked | Answered):
            # What a streamed answer said stands in no single body: its parts are judged as they are put together.
            raw = message.unit.raw or json.dumps([asdict(part) for part in content.parts]).encode()
            return (await self._pool.answer(raw, "json")).verdict
        return None
