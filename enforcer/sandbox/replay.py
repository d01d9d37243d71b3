"""Twins that follow sessions (`session = "replay"`): one for each session, which gets the session's calls in their order.

Its state is what was frozen at the session's first call, and what the session's own calls did to it since. What it does not know: writes of others, calls
of the session that have no twin or never reached the server, and the order in which the server took calls that came at once. Each of these can only
make its answers differ, which is UNSURE. A twin that is gone (idle, one too many, late, crashed) is followed by one that begins with the next call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from enforcer.sandbox.frozen import CannotFreeze
from enforcer.sandbox.pool import Pool, State
from enforcer.sandbox.twin import Twin
from escrow.sandbox.run import Run

MAX_SESSIONS: Final = 8
"""Of one server and era: each keeps a twin's memory."""
IDLE_SECONDS: Final = 600.0
MAX_WAITING: Final = 16
"""Calls of one session that wait for their turn."""


@dataclass(slots=True, eq=False)
class _Session:
    """turn: one call at a time, in the order in which they came. frozen: set once the state of the first stands, or never will."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    frozen: asyncio.Event = field(default_factory=asyncio.Event)
    state: State | None = None
    twin: Twin | None = None
    waiting: int = 0
    used: float = field(default_factory=time.monotonic)


class Sessions:
    """The sessions of one server in one era. Used from one event loop; `close` ends their twins."""

    def __init__(self, pool: Pool, most: int = MAX_SESSIONS, idle_s: float = IDLE_SECONDS) -> None:
        self._pool, self._most, self._idle_s = pool, most, idle_s
        self._sessions: dict[str, _Session] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def count(self) -> int:
        return len(self._sessions)

    async def run(self, session: str, request: bytes, name: str | int, told: Callable[[], None] = lambda: None) -> Run:
        """Put a session's next call to its twin. told: called once its state stands, and the real call may go on."""
        found = self._sessions.get(session)
        first = found is None
        if found is None:
            if not self._has_room():
                return Run("absent", why=f"{self._most} sessions have a twin, and all are at work")
            found = self._sessions[session] = _Session()
        if found.waiting >= MAX_WAITING:
            return Run("absent", why="too many calls of this session wait for its twin")
        found.waiting += 1
        try:
            if why := await self._freeze(found) if first else "":
                self._drop(session, found)
                return Run("failed", why=why)
            await found.frozen.wait()
            told()
            async with found.turn:
                return await self._next(session, found, request, name)
        except BaseException:  # given up in its middle: where its twin stands is not known any more
            self._drop(session, found)
            raise
        finally:
            found.frozen.set()
            found.waiting -= 1
            found.used = time.monotonic()
            self._watch()

    async def _freeze(self, found: _Session) -> str:
        """Why the session's first call has no state; "" where it has."""
        try:
            found.state = await self._pool.freeze()
            return ""
        except (CannotFreeze, OSError) as error:
            return str(error)
        finally:
            found.frozen.set()

    async def _next(self, session: str, found: _Session, request: bytes, name: str | int) -> Run:
        pooled = False
        if found.twin is None and found.state is not None:
            found.twin, pooled = await self._pool.twin()
            self._pool.fill()
        if found.twin is None or found.state is None:
            self._drop(session, found)
            return Run("absent", why="the twin of this session ended, or could not be restored")
        run = await found.twin.follow(request, name, found.state.frozen, pooled)
        if run.outcome != "answered" or not run.effects.complete:
            self._drop(session, found)
        return run

    def _has_room(self) -> bool:
        """Room for one more; the session that was idle longest makes it."""
        if len(self._sessions) < self._most:
            return True
        idle = [(found.used, session, found) for session, found in self._sessions.items() if not found.waiting]
        if not idle:
            return False
        _, session, found = min(idle, key=lambda each: each[0])
        self._drop(session, found)
        return True

    def _watch(self) -> None:
        """Look again when the first of them has been idle for long."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        idle = [found.used for found in self._sessions.values() if not found.waiting]
        if idle:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, min(idle) + self._idle_s - time.monotonic()), self._end_idle)

    def _end_idle(self) -> None:
        until = time.monotonic() - self._idle_s
        for session, found in list(self._sessions.items()):
            if not found.waiting and found.used <= until:
                self._drop(session, found)
        self._watch()

    def _drop(self, session: str, found: _Session) -> None:
        if self._sessions.get(session) is found:
            del self._sessions[session]
        twin, state, found.twin, found.state = found.twin, found.state, None, None
        if twin is not None or state is not None:
            ending = asyncio.create_task(self._pool.throw_away(twin, state))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        for session, found in list(self._sessions.items()):
            self._drop(session, found)
        if self._timer is not None:
            self._timer.cancel()
        if self._ending:
            await asyncio.wait(self._ending)
