"""The daemon's side of the jury: who is asked about, how often, and what it means when the member is late, dead or lying.

`judge` never raises and never hangs: whatever goes wrong is a verdict UNSURE, which holds. Its verdict stands beside the scanner's and replaces nothing,
so it can only add a hold. The work done here for a message does not grow with it: unpacking is the member's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Final

from enforcer.exactly import receive
from enforcer.jury import frames
from enforcer.jury.budget import Budget
from escrow import jury
from escrow.jury import Opinion
from escrow.jury_evidence import Mark, marks
from escrow.jury_settings import JurySettings
from escrow.verdict import Verdict

GRACE_S: Final = 1.0
"""A member that is silent so long after its own deadline is given up."""


class Jury:
    """One member and what is asked of it. Lives on one event loop.

    on_lost: called once for every member that is given up (dead, late or lying), so that another can be made.
    """

    def __init__(self, settings: JurySettings, on_lost: Callable[[], None] | None = None) -> None:
        self._settings = settings
        self._on_lost = on_lost
        self._budget = Budget(settings.max_calls_per_hour)
        self._free = asyncio.Semaphore(frames.IN_FLIGHT)
        self._member: _Member | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def present(self) -> bool:
        """Whether a member is there to be asked."""
        return self._member is not None

    def in_band(self, scanner: Verdict) -> bool:
        """Whether it is asked about a message of which the scanner says this."""
        return jury.in_band(scanner, self._settings)

    def add(self, sock: socket.socket) -> None:
        """Take a member's socket over, in place of an earlier one. Call on the loop's thread."""
        sock.setblocking(False)
        earlier, self._member = self._member, _Member(sock, self._lost)
        if earlier is not None:
            earlier.close()

    async def judge(self, raw: bytes, scanner: Verdict) -> Verdict | None:
        """The jury's verdict on a message's bytes, or on a text's; None where it is not asked.

        scanner: what the scanner said of exactly these bytes.
        """
        if not self.in_band(scanner):
            return None
        started = time.monotonic()
        opinion = await self._ask(raw, marks(scanner.reasons), started)
        return jury.verdict(opinion, (time.monotonic() - started) * 1000)

    async def close(self) -> None:
        """Let the member go. What still waits is answered with UNSURE."""
        self._closed = True
        if self._member is not None:
            self._member.close()
        await asyncio.gather(*self._leaving)

    async def _ask(self, raw: bytes, marked: tuple[Mark, ...], started: float) -> Opinion:
        if len(raw) > frames.MAX_RAW_BYTES:
            return Opinion("jury.too-large")
        if self._member is None:
            return Opinion("jury.missing")
        if not self._budget.take(started):
            return Opinion("jury.budget")
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._free.acquire()
        except TimeoutError:
            return Opinion("jury.busy")
        try:
            # It may have gone, or another come, while we waited for our turn.
            return Opinion("jury.missing") if self._member is None else await self._member.ask(marked, raw, self._settings.timeout_s + GRACE_S)
        finally:
            self._free.release()

    def _lost(self, member: _Member, leaving: asyncio.Task[None]) -> None:
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        if self._member is member:
            self._member = None
            if self._on_lost is not None and not self._closed:
                self._on_lost()


class _Member:
    """The near end of one member's socket: numbers questions, pairs answers."""

    def __init__(self, sock: socket.socket, on_lost: Callable[[_Member, asyncio.Task[None]], None]) -> None:
        self._sock = sock
        self._on_lost = on_lost
        self._next = 0
        self._waiting: dict[int, asyncio.Future[Opinion]] = {}
        self._writing = asyncio.Lock()
        self._sending: set[asyncio.Task[None]] = set()
        self._gone = False
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def ask(self, marked: tuple[Mark, ...], raw: bytes, deadline_s: float) -> Opinion:
        """Its opinion in time, or why there is none."""
        if self._gone:
            return Opinion("jury.crashed")
        loop = asyncio.get_running_loop()
        number, self._next = self._next, (self._next + 1) & 0xFFFFFFFF
        answered: asyncio.Future[Opinion] = loop.create_future()
        self._waiting[number] = answered
        sending = loop.create_task(self._send(frames.question(number, marked, raw)))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        try:
            async with asyncio.timeout(deadline_s):
                return await answered
        except TimeoutError:  # it keeps its own deadline, if it is alive
            self.close()
            return Opinion("jury.late")
        finally:
            self._waiting.pop(number, None)

    async def _send(self, whole: bytes) -> None:
        """A task of its own: an asker who leaves must not cut a question in two, for the next could not be told from its rest."""
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
                number, opinion = frames.read_answer(await receive(self._sock, frames.ANSWER.size))
                waiting = self._waiting.get(number)
                if waiting is not None and not waiting.done():  # else its asker has left
                    waiting.set_result(opinion)
        except (OSError, frames.Garbled):  # the end, or an answer that is none
            self.close()

    def close(self) -> None:
        """Give it up; what waits for it is answered."""
        if self._gone:
            return
        self._gone = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(Opinion("jury.crashed"))
        self._on_lost(self, asyncio.get_running_loop().create_task(self._end()))

    async def _end(self) -> None:
        """Close the socket once nobody reads or writes it: until then the loop knows its number, which the next socket would get."""
        await asyncio.gather(self._reading, *self._sending, return_exceptions=True)
        self._sock.close()
