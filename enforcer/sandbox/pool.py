"""A server's twins, restored ahead of its calls: taken by one call each, made anew at idle priority, ended in the background.

Nothing that goes wrong leaves here as an exception: a call without a twin is a `Run` that says so, and its judge is UNSURE.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path

from enforcer.sandbox.frozen import CannotFreeze, Frozen, Snapshots
from enforcer.sandbox.group import NoGroups
from enforcer.sandbox.learning import LATER_SECONDS, TIMES, Learned
from enforcer.sandbox.mcp import Silent
from enforcer.sandbox.template import Template
from enforcer.sandbox.twin import Maker, Twin
from escrow.sandbox.run import Run

RESTORE_SECONDS = 30.0
AT_ONCE = 4
"""Most twins that run or are restored at once, for each server: each takes tens of MiB and a share of a core."""
KEPT_TIMES = 256
WAIT_SECONDS = 2.0
"""How much longer than its own twin a tool's first call waits for the second."""
RETRY_SECONDS = 5.0
"""After a twin could not be restored, so long nothing is made ahead."""


@dataclass(frozen=True, slots=True)
class State:
    """Frozen state, and the folder of everything that is made for it."""

    frozen: Frozen
    folder: Path


@dataclass(frozen=True, slots=True)
class Counts:
    """hits: calls that found a twin. misses: calls that had one restored. failures: twins that could not be restored. left: twins that did not end.

    waiting: twins ready now. took_ms: of the last calls that were answered, oldest first.
    """

    hits: int
    misses: int
    failures: int
    left: int
    waiting: int
    took_ms: tuple[float, ...]


class Pool:
    """The twins of one server. Used from one event loop; `close` ends all that it started."""

    def __init__(self, maker: Maker, template: Template, folder: Path, snapshots: Snapshots) -> None:
        """folder: the server's own, that holds its templates."""
        self._maker, self._snapshots = maker, snapshots
        self._image = folder / template.digest / "image"
        self._ready: deque[Twin] = deque()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._background: set[asyncio.Task[None]] = set()
        self._filling: asyncio.Task[None] | None = None
        self._hits = self._misses = self._failures = self._left = 0
        self._learned = Learned()
        self._took_ms: deque[float] = deque(maxlen=KEPT_TIMES)
        self._why = ""
        self._closed = False

    @property
    def counts(self) -> Counts:
        return Counts(self._hits, self._misses, self._failures, self._left, len(self._ready), tuple(self._took_ms))

    def fill(self) -> None:
        """Begin to restore what is missing. Returns at once."""
        if not self._closed and (self._filling is None or self._filling.done()):
            self._filling = asyncio.create_task(self._fill())

    async def filled(self, seconds: float) -> bool:
        """Whether the pool is full, after waiting for it at most so long."""
        self.fill()
        assert self._filling is not None
        await asyncio.wait({self._filling}, timeout=seconds)
        return len(self._ready) >= self._maker.settings.pool

    async def run(self, request: bytes, name: str | int, told: Callable[[], None] = lambda: None, tool: str = "") -> Run:
        """Put a call to a twin of its own, on state frozen now. name: the request's id. told: called once the state is frozen.

        tool: what is learned of it is used, and added to; "" to learn nothing.
        """
        run = await self._frozen(request, name, told, tool)
        self.fill()
        return run

    async def once(self, request: bytes, name: str | int, told: Callable[[], None] = lambda: None) -> Run:
        """The same, and nothing is learned, or restored in the place of the twin that it took."""
        return await self._frozen(request, name, told, "")

    async def _frozen(self, request: bytes, name: str | int, told: Callable[[], None], tool: str) -> Run:
        if self._closed:
            return Run("absent", why="the sandbox is shut down")
        try:
            state = await self.freeze()
        except (CannotFreeze, OSError) as error:
            return Run("failed", why=str(error))
        frozen, folder = state.frozen, state.folder
        users: list[asyncio.Task[None]] = []
        try:
            told()
            first: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
            users += self._learn(frozen, folder, request, name, tool, first)
            run = await self._in_twin(frozen, request, name, users)
            first.set_result(run.answer)
            if users and self._learned.tries(tool) == 1:
                await asyncio.wait(users[:1], timeout=WAIT_SECONDS)
        finally:
            first.cancel()
            self._behind(self._over(users, state))
        if run.outcome == "answered":
            self._took_ms.append(run.took_ms)
        return replace(run, learned=self._learned.of(tool))

    async def freeze(self) -> State:
        """The state now, for whoever gives it back with `throw_away`. CannotFreeze, OSError."""
        folder = self._maker.folder / f"state-{secrets.token_hex(6)}"
        folder.mkdir(mode=0o700, parents=True)
        freezing = asyncio.create_task(self._snapshots.freeze(folder / "frozen"))
        try:
            return State(await asyncio.shield(freezing), folder)
        except (CannotFreeze, OSError):
            self._behind(_remove(folder))
            raise
        except asyncio.CancelledError:
            self._behind(_unwanted(freezing, folder))
            raise

    async def twin(self) -> tuple[Twin | None, bool]:
        """A twin for longer than one call, for whoever gives it back with `throw_away`; and whether it came from the pool."""
        if (twin := self._take()) is not None:
            return twin, True
        async with self._room:
            return await self._restore(hurry=True), False

    async def throw_away(self, twin: Twin | None, state: State | None) -> None:
        if twin is not None:
            await self._end(twin)
        if state is not None:
            await self._over([], state)

    def learned(self, tool: str) -> tuple[str, ...]:
        """Volatile places of a tool's answers."""
        return self._learned.of(tool)

    async def _in_twin(self, frozen: Frozen, request: bytes, name: str | int, users: list[asyncio.Task[None]]) -> Run:
        """users: gets what ends the twin."""
        twin = self._take()
        pooled = twin is not None
        try:
            async with self._room:
                if twin is None:
                    twin = await self._restore(hurry=True)
                self._hits, self._misses = self._hits + pooled, self._misses + (not pooled)
                if twin is None:
                    return Run("absent", why=f"no twin could be restored: {self._why}", frozen_ms=frozen.took_ms)
                return await twin.run(request, name, frozen, pooled)
        finally:
            if twin is not None:
                users.append(asyncio.create_task(self._end(twin)))

    def _learn(self, frozen: Frozen, folder: Path, request: bytes, name: str | int, tool: str, first: asyncio.Future[bytes | None]) -> list[asyncio.Task[None]]:
        """Begin to put the call to a second twin, where there is something to learn. first: the first twin's answer."""
        tries = self._learned.tries(tool)
        if not tool or tries >= TIMES:
            return []
        try:
            another = frozen.another(folder / "another")
        except OSError:
            another = None
        if another is None:
            return []
        self._learned.begin(tool)
        return [asyncio.create_task(self._second(another, request, name, tool, first, LATER_SECONDS if tries else 0))]

    async def _second(self, frozen: Frozen, request: bytes, name: str | int, tool: str, first: asyncio.Future[bytes | None], later_s: float) -> None:
        users: list[asyncio.Task[None]] = []
        try:
            await asyncio.sleep(later_s)
            if first.cancelled() or self._closed:
                return
            run = await self._in_twin(frozen, request, name, users)
            if run.answer is not None and (answer := await first) is not None:
                await asyncio.to_thread(self._learned.take, tool, answer, run.answer)
        except asyncio.CancelledError:
            if not first.cancelled():
                raise
        finally:
            if users:
                await asyncio.wait(users)

    async def _over(self, users: list[asyncio.Task[None]], state: State) -> None:
        """The state of one call is thrown away once no twin has it any more."""
        if users:
            await asyncio.wait(users)
        await asyncio.to_thread(state.frozen.release)
        await _remove(state.folder)

    async def close(self) -> None:
        self._closed = True
        if self._filling is not None:
            await asyncio.wait({self._filling})
        while self._ready:
            self._behind(self._end(self._ready.popleft()))
        if self._background:
            await asyncio.wait(self._background)

    def _take(self) -> Twin | None:
        while self._ready:
            twin = self._ready.popleft()
            if twin.running():
                return twin
            self._failures += 1
            self._behind(self._end(twin))
        return None

    async def _fill(self) -> None:
        while not self._closed and len(self._ready) < self._maker.settings.pool:
            twin = await self._restore(hurry=False)
            if twin is None:
                await asyncio.sleep(RETRY_SECONDS)
                return
            twin.pause()
            self._ready.append(twin)

    async def _restore(self, *, hurry: bool) -> Twin | None:
        try:
            twin = await Twin.start(self._maker, self._image)
        except (NoGroups, OSError) as error:
            self._why, self._failures = str(error), self._failures + 1
            return None
        try:
            if hurry:
                twin.schedule(os.SCHED_OTHER)
            await twin.ready(RESTORE_SECONDS)
        except (TimeoutError, Silent) as error:
            self._why, self._failures = str(error) or "it did not answer in time", self._failures + 1
            self._behind(self._end(twin))
            return None
        except BaseException:
            self._behind(self._end(twin))
            raise
        return twin

    async def _end(self, twin: Twin) -> None:
        if not await twin.end():
            self._left += 1

    def _behind(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _unwanted(freezing: asyncio.Task[Frozen], folder: Path) -> None:
    """It goes on, in a thread, and is thrown away then."""
    await asyncio.wait({freezing})
    if freezing.exception() is None:
        await asyncio.to_thread(freezing.result().release)
    await _remove(folder)


async def _remove(folder: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, True)
