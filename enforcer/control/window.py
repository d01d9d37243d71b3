"""The daemon's end of the supervisor's window: each question's token, then its scope, then its arguments, then its answer.

The window is trusted with nothing but the address of a connection's other end: it handles strangers' bytes. Its socket knows supervisors'
tools (`escrow.supervisor.tools`) and nothing else; a line that is no question ends it, and the helper starts another window.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections.abc import Callable

from pydantic import ValidationError

from enforcer.control.guesses import AT_ONCE as SLOWED_AT_ONCE
from enforcer.control.guesses import DELAY_S, WINDOW_S, Guesses
from enforcer.control.own import Caller, credential_of
from enforcer.control.supervising import Supervising
from enforcer.control.tokens import Tokens
from enforcer.custody import StoreFailed
from escrow.gate import DecisionRefused
from escrow.supervisor.answers import WindowCounts
from escrow.supervisor.scopes import Scope
from escrow.supervisor.tools import TOOLS
from escrow.supervisor.wire import AT_ONCE, AUTHENTICATE, MAX_ANSWER_BYTES, MAX_QUESTION_BYTES, Question, Refusal, Reply

Local = tuple[str, int]
LookUp = Callable[[Local, Local], tuple[int, int | None] | None]
"""(the peer's address, our address) → (uid, cgroup) of the process there; None where it is not on this machine."""


class WindowServer:
    """look_up: in the namespace of the window's listener; None where the system has no such thing. lost: called when a window's socket ends."""

    def __init__(self, supervising: Supervising, tokens: Tokens, look_up: LookUp | None, lost: Callable[[], None]) -> None:
        self._supervising, self._tokens, self._look_up, self._lost = supervising, tokens, look_up, lost
        self._guesses = Guesses()
        self._answered = 0
        self._serving: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    @property
    def live(self) -> bool:
        """Whether a window is connected."""
        return self._serving is not None and not self._serving.done()

    @property
    def counts(self) -> WindowCounts:
        return WindowCounts(answered=self._answered, refused=self._guesses.refused, slowed=self._guesses.slowed)

    def add(self, window: socket.socket) -> None:
        """Serve a window that was started, instead of the one before."""
        self.close()
        self._serving = asyncio.ensure_future(self._serve(window))

    def close(self) -> None:
        if self._serving is not None:
            self._serving.cancel()

    async def _serve(self, window: socket.socket) -> None:
        window.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=window, limit=MAX_QUESTION_BYTES)
        slots, under_way = asyncio.Semaphore(AT_ONCE), set[asyncio.Task[None]]()
        try:
            while line := await reader.readline():
                question = Question.model_validate_json(line)
                await slots.acquire()
                task = asyncio.ensure_future(self._reply(question, writer))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                task.add_done_callback(lambda _: slots.release())
        except (ValueError, OSError):  # no question, or a line without an end
            pass
        finally:
            for task in under_way:
                task.cancel()
            writer.close()
            if self._serving is asyncio.current_task():
                self._lost()

    async def _reply(self, question: Question, writer: asyncio.StreamWriter) -> None:
        reply = await self.answer(question)
        async with self._writing:  # one line at a time: a window that does not read fills no memory with more
            line = reply.model_dump_json().encode()
            if len(line) > MAX_ANSWER_BYTES:
                line = Reply(id=question.id, refusal=Refusal(code="failed", text="the answer is too long: ask for less of it")).model_dump_json().encode()
            with contextlib.suppress(OSError):
                writer.write(line + b"\n")
                await writer.drain()

    async def answer(self, question: Question) -> Reply:
        """Never raises."""
        caller = await self._authenticate(question)
        if isinstance(caller, Refusal):
            return Reply(id=question.id, refusal=caller)
        self._answered += 1
        if question.tool == AUTHENTICATE:
            return Reply(id=question.id, value={"name": caller.token.name, "scopes": sorted(caller.token.scopes)})
        tool = TOOLS.get(question.tool)
        if tool is None:
            return Reply(id=question.id, refusal=Refusal(code="absent", text="there is no such tool"))
        if tool.scope is not Scope.READ and tool.scope not in caller.token.scopes:
            return Reply(id=question.id, refusal=Refusal(code="scope", text=f"{tool.name} needs a token with scope `{tool.scope.value}`"))
        try:
            given = await self._supervising.answer(tool.takes.model_validate(question.arguments), tool.name, caller, self.counts)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'arguments'}: {p['msg']}" for p in error.errors(include_input=False)[:5])
            given = Refusal(code="unfit", text=problems.encode("ascii", "backslashreplace").decode()[:2000])
        except KeyError:
            given = Refusal(code="absent", text="there is no such record or item, or the cursor is too old")
        except (DecisionRefused, ValueError) as error:
            given = Refusal(code="unfit", text=str(error)[:2000])
        except StoreFailed as error:
            given = Refusal(code="failed", text=str(error)[:2000])
        if isinstance(given, Refusal):
            return Reply(id=question.id, refusal=given)
        return Reply(id=question.id, value=given.model_dump(mode="json"))

    async def _authenticate(self, question: Question) -> Caller | Refusal:
        token = self._tokens.find(question.token) if question.token else None
        process = self._process(question)
        if token is not None and token.expires_at > time.time():
            return Caller(token, credential_of(question.token), None if question.peer is None else question.peer[0], process)
        if self._guesses.failed(_origin(question, process), time.monotonic()):
            await self._hold_back()
            return Refusal(code="rate", text="too many requests without a good token came from there", retry_after_s=int(WINDOW_S))
        if token is not None:
            return Refusal(code="token", text="the token has expired")
        return Refusal(code="token", text="the token is unknown or was revoked" if question.token else "a bearer token is needed")

    async def _hold_back(self) -> None:
        if self._guesses.waiting < SLOWED_AT_ONCE:
            self._guesses.waiting += 1
            try:
                await asyncio.sleep(DELAY_S)
            finally:
                self._guesses.waiting -= 1

    def _process(self, question: Question) -> tuple[int, int | None] | None:
        if self._look_up is None or question.peer is None or question.own is None:
            return None
        (peer, peer_port), (own, own_port) = question.peer, question.own
        try:
            return self._look_up((peer.partition("%")[0], peer_port), (own.partition("%")[0], own_port))
        except ValueError:  # no addresses
            return None


def _origin(question: Question, process: tuple[int, int | None] | None) -> str:
    """Whose guesses are counted together: a user of this machine, an IPv4 address, an IPv6 network of 64 bits."""
    if process is not None:
        return f"uid {process[0]}"
    if question.peer is None:
        return "unknown"
    try:
        address = ipaddress.ip_address(question.peer[0].partition("%")[0])
    except ValueError:
        return "unknown"
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))
