"""The daemon's side of the twins: asks the keeper for a run of a call, and says what silence means.

It never raises and never hangs: a keeper that is missing, dead, late or lying is a run that is absent or late, which is UNSURE.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from enforcer.exactly import receive
from enforcer.sandbox import frames
from enforcer.sandbox.frames import Asked, Kind, Phase
from enforcer.sandbox.way_back import LOOK_S, REVERT_S, NoOrder, Order, Told, order_bytes, read_told
from escrow.call import Call, Transport
from escrow.policy import ToolRules
from escrow.sandbox.run import Run
from escrow.sandbox.settings import SandboxSettings

GRACE_S: Final = 2.0
"""A keeper that is silent so long after a run's own time is given up."""
SHOW_S: Final = 2.0


class Speculation:
    """A run under way. Frozen or not, `ran` says how it ended, however often it is asked."""

    def __init__(self, discard: Callable[[], None], deadline_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.frozen: asyncio.Future[None] = loop.create_future()
        self.run: asyncio.Future[Run] = loop.create_future()
        self._discard = discard
        self._timer = loop.call_later(deadline_s, self.end, Run("late", why="the keeper of the twins is silent"))

    async def ran(self) -> Run:
        """How it ended."""
        return await asyncio.shield(self.run)

    def discard(self) -> None:
        """Nobody wants it any more: the twin may go."""
        if not self.run.done():
            self._discard()
            self.end(Run("absent", why="it was given up"))

    def end(self, run: Run) -> None:
        """It ended so; what comes later counts for nothing."""
        self._timer.cancel()
        if not self.frozen.done():
            self.frozen.set_result(None)
        if not self.run.done():
            self.run.set_result(run)


class Twins:
    """One keeper and what is asked of it. Lives on one event loop.

    settings: by server. missing: why there is no keeper, for people; "" while one is to come.
    on_lost: called once for every keeper that is given up, so that another can be made.
    """

    def __init__(self, settings: Mapping[str, SandboxSettings], missing: str = "", on_lost: Callable[[], None] | None = None) -> None:
        self._settings, self.missing, self._on_lost = settings, missing, on_lost
        self._keeper: _Keeper | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False
        self.asked = self.pooled = 0
        """Runs since the daemon's start, and those of them that a twin from the pool took."""

    @property
    def present(self) -> bool:
        """Whether a keeper is there to be asked."""
        return self._keeper is not None

    def add(self, sock: socket.socket) -> None:
        """Take a keeper's socket over, in place of an earlier one. Call on the loop's thread."""
        sock.setblocking(False)
        earlier, self._keeper = self._keeper, _Keeper(sock, self._lost)
        if earlier is not None:
            earlier.close()

    async def freeze(self, call: Call, raw: bytes, rules: ToolRules) -> Speculation:
        """Start a run of a call; returns once its state is frozen, or `snapshot_ms` have passed, in which case the run is none."""
        settings = self._settings.get(call.server)
        if settings is None:
            return _ended(Run("absent", why="the policy has no twin of this server"))
        if self._keeper is None:
            return _ended(Run("absent", why=self.missing or "the keeper of the twins is not there"))
        self.asked += 1
        session = f"{call.principal} {call.session or ''}"[:1024] if rules.session == "replay" else ""
        asked = Asked(call.server, call.id, session, call.transport is Transport.STATELESS, call.name[:1024])
        speculation = self._keeper.ask(asked, raw, (settings.snapshot_ms + settings.run_ms) / 1000 + GRACE_S)
        speculation.run.add_done_callback(self._count)
        try:
            async with asyncio.timeout(settings.snapshot_ms / 1000):
                await asyncio.shield(speculation.frozen)
        except TimeoutError:  # what it freezes from now on may show the real call's own writes
            speculation.discard()
            return _ended(Run("failed", why=f"its state could not be frozen within {settings.snapshot_ms} ms"))
        except asyncio.CancelledError:
            speculation.discard()
            raise
        return speculation

    async def show(self) -> dict[str, Any]:
        """What the keeper says of its templates and its pool; never longer than `SHOW_S`."""
        counted: dict[str, Any] = {"present": self.present, "why": self.missing, "runs": self.asked, "pooled": self.pooled}
        if self._keeper is None:
            return {**counted, "servers": []}
        return {**counted, **await self._keeper.show()}

    async def way_back(self, server: str, order: Order) -> Told:
        """About a clone for a revert. Never raises, never hangs; a keeper that is silent may still carry it out."""
        if server not in self._settings:
            return Told(why="the policy has no twin of this server")
        if self._keeper is None:
            return Told(why=self.missing or "the keeper of the twins is not there")
        patience_s = {"take": self._settings[server].snapshot_ms / 1000, "revert": REVERT_S}.get(order.verb, LOOK_S)
        return await self._keeper.way_back(server, order, patience_s + GRACE_S)

    async def close(self) -> None:
        """Let the keeper go. What still waits is answered."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.close()
        await asyncio.gather(*self._leaving)

    def _count(self, ended: asyncio.Future[Run]) -> None:
        self.pooled += not ended.cancelled() and ended.result().pooled

    def _lost(self, keeper: _Keeper, leaving: asyncio.Task[None]) -> None:
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        if self._keeper is keeper:
            self._keeper = None
            if self._on_lost is not None and not self._closed:
                self._on_lost()


def _ended(run: Run) -> Speculation:
    speculation = Speculation(lambda: None, 0)
    speculation.end(run)
    return speculation


class _Keeper:
    """The near end of the keeper's socket: numbers questions, pairs answers."""

    def __init__(self, sock: socket.socket, on_lost: Callable[[_Keeper, asyncio.Task[None]], None]) -> None:
        self._sock, self._on_lost = sock, on_lost
        self._next = 0
        self._waiting: dict[int, Speculation] = {}
        self._shows: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._told: dict[int, asyncio.Future[Told]] = {}
        self._unwanted: dict[int, str] = {}
        """Questions for a clone whose asker left → the server."""
        self._writing = asyncio.Lock()
        self._sending: set[asyncio.Task[None]] = set()
        self._gone = False
        self._reading = asyncio.get_running_loop().create_task(self._read())

    def ask(self, asked: Asked, raw: bytes, deadline_s: float) -> Speculation:
        """Start a run."""
        number = self._number()
        if len(self._waiting) >= frames.IN_FLIGHT:
            return _ended(Run("absent", why="too many runs are under way"))
        speculation = Speculation(lambda: self._say(number, Phase.DISCARD), deadline_s)
        try:
            whole = frames.question(number, Phase.FREEZE, asked, raw)
        except frames.Garbled:
            speculation.end(Run("absent", why="the call is larger than a twin takes"))
            return speculation
        self._waiting[number] = speculation
        speculation.run.add_done_callback(lambda _: self._waiting.pop(number, None))
        self._spawn(whole)
        return speculation

    async def show(self) -> dict[str, Any]:
        number, answered = self._number(), asyncio.get_running_loop().create_future()
        self._shows[number] = answered
        self._say(number, Phase.SHOW)
        try:
            async with asyncio.timeout(SHOW_S):
                shown: dict[str, Any] = await answered
                return shown
        except TimeoutError:
            return {"servers": [], "why": "the keeper of the twins is silent"}
        finally:
            self._shows.pop(number, None)

    async def way_back(self, server: str, order: Order, patience_s: float) -> Told:
        number, answered = self._number(), asyncio.get_running_loop().create_future()
        self._told[number] = answered
        self._spawn(frames.question(number, Phase.WAY_BACK, Asked(server), order_bytes(order)))
        told: Told | None = None
        try:
            async with asyncio.timeout(patience_s):
                told = await answered
                return told
        except TimeoutError:
            return Told(why="the keeper of the twins is silent")
        finally:
            self._told.pop(number, None)
            if told is None and order.verb == "take":  # nobody waits for the clone any more: it goes as soon as it is there
                self._unwanted[number] = server
                if answered.done() and not answered.cancelled():
                    self._forget(number, answered.result())

    def _forget(self, number: int, told: Told) -> None:
        server = self._unwanted.pop(number, None)
        if server is not None and told.token is not None:
            self._spawn(frames.question(self._number(), Phase.WAY_BACK, Asked(server), order_bytes(Order("forget", told.token))))

    def _number(self) -> int:
        number, self._next = self._next, (self._next + 1) & 0xFFFFFFFF
        return number

    def _say(self, number: int, phase: Phase) -> None:
        if not self._gone:
            self._spawn(frames.question(number, phase))

    def _spawn(self, whole: bytes) -> None:
        sending = asyncio.get_running_loop().create_task(self._send(whole))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _send(self, whole: bytes) -> None:
        """A task of its own: an asker who leaves must not cut a question in two."""
        async with self._writing:
            if self._gone:
                return
            try:
                await asyncio.get_running_loop().sock_sendall(self._sock, whole)
            except OSError:
                self.close()

    async def _read(self) -> None:
        try:
            while True:
                number, kind, body_bytes, answer_bytes = frames.read_answer(await receive(self._sock, frames.ANSWER.size))
                body, answer = await receive(self._sock, body_bytes), await receive(self._sock, answer_bytes)
                speculation = self._waiting.get(number)
                match kind:
                    case Kind.FROZEN:
                        if speculation is not None and not speculation.frozen.done():
                            speculation.frozen.set_result(None)
                    case Kind.RUN:
                        run = frames.read_run(body, answer)
                        if speculation is not None:
                            speculation.end(run)
                    case Kind.SHOWN:
                        shown = frames.read_shown(body)
                        if (waiting := self._shows.get(number)) is not None and not waiting.done():
                            waiting.set_result(shown)
                    case Kind.TOLD:
                        told = read_told(body)
                        if (asking := self._told.get(number)) is not None and not asking.done():
                            asking.set_result(told)
                        else:
                            self._forget(number, told)
        except (OSError, frames.Garbled, NoOrder):  # the end, or an answer that is none
            self.close()

    def close(self) -> None:
        """Give it up; what waits for it is answered."""
        if self._gone:
            return
        self._gone = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        for speculation in list(self._waiting.values()):
            speculation.end(Run("absent", why="the keeper of the twins ended"))
        for waiting in self._shows.values():
            if not waiting.done():
                waiting.set_result({"servers": [], "why": "the keeper of the twins ended"})
        for asking in self._told.values():
            if not asking.done():
                asking.set_result(Told(why="the keeper of the twins ended"))
        self._on_lost(self, asyncio.get_running_loop().create_task(self._end()))

    async def _end(self) -> None:
        """Close the socket once nobody reads or writes it."""
        await asyncio.gather(self._reading, *self._sending, return_exceptions=True)
        self._sock.close()
