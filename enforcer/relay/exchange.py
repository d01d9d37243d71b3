"""One client request and all that comes of it, from its last byte to the answer's.

What was judged is what is sent: a request's body goes on as it was parsed, a message comes back as custody gave it out.

An exchange is a row of steps (`asking`, `forwarding`, `answering`). As long as custody and the pool of connections answer at once, each step
calls the next, from the read of one socket to the write of the other; what takes its time runs in a task (`later`) that ends with the next step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from enforcer.custody import Outgoing, Running, Ticket
from enforcer.relay.context import Context
from enforcer.relay.head import response_head
from enforcer.relay.upstream import Connection, UpstreamDown
from escrow import answers
from escrow.call import Call, Transport
from escrow.http.head import BadMessage, Head, Headers

if TYPE_CHECKING:
    from enforcer.relay.asking import Place
    from enforcer.relay.client import Client

_T = TypeVar("_T")
JSON: Headers = ((b"content-type", b"application/json"),)
IN_LOOP = 64 * 1024
"""Larger messages are parsed in a thread, and written without being copied once more, so that other connections go on."""


class AtServer:
    """The part of an exchange that is at the server: a request on its way (`Forwarding`), or a stream of its events (`EventRelay`)."""

    __slots__ = ()

    def close(self) -> None:
        """It is over."""

    def client_gone(self) -> None: ...
    def client_pressed(self) -> None:
        """The client takes no more for now, or again."""


class Exchange:
    """See the module. It calls `finished` or `refuse` of its client once, at its end."""

    __slots__ = (
        "_then",
        "answered",
        "at_server",
        "body",
        "call",
        "client",
        "context",
        "forwarded",
        "head",
        "over",
        "place",
        "resumable",
        "running",
        "started",
        "ticket",
    )

    def __init__(self, context: Context, client: Client, head: Head, body: bytes) -> None:
        self.context, self.client, self.head, self.body = context, client, head, body
        self.started = time.monotonic()
        self.place: Place
        self.call: Call | None = None
        self.running: Running | None = None
        self.at_server: AtServer | None = None
        self.ticket: Ticket | None = None
        """The held message whose outcome is waited for."""
        self.forwarded = self.answered = self.over = False
        self.resumable = False
        """Whether the client can take the answer up again at the server."""
        self._then: Callable[[Outgoing], None]

    # --- steps ---

    def step(self, step: Callable[..., None], *given: Any) -> None:
        """Take a step, unless it is over. A message that cannot be taken is the client's before the request went on, and the server's after."""
        if self.over:
            return
        try:
            step(*given)
        except BadMessage as error:
            if self.forwarded:
                self.server_bad(error)
            else:
                self._release(None)
                self.client.refuse(error)

    def later(self, work: Coroutine[Any, Any, _T], then: Callable[[_T], None]) -> None:
        """Take a step when something is done."""
        self.context.spawn(self._run(work, then))

    async def _run(self, work: Coroutine[Any, Any, _T], then: Callable[[_T], None]) -> None:
        try:
            given = await work
        except BadMessage as error:
            self.step(_raise, error)
        except UpstreamDown:
            self.step(self.fail, "the guarded server cannot be reached")
        except Exception:
            self.end(False)
            raise
        else:
            if self.over:
                await self._undo(given)
            self.step(then, given)

    async def _undo(self, given: object) -> None:
        """What a step would have taken on came too late."""
        if isinstance(given, Ticket):
            await given.failed()
        elif isinstance(given, Running):
            self.context.custody.settle(given)
        elif isinstance(given, Connection):
            given.close()

    def end(self, keep: bool, left: str | None = None) -> None:
        """It is over. keep: whether the client's connection may be used again; left: the id of an item left undelivered."""
        if not self.over:
            self._release(left)
            self.client.finished(keep)

    def stop(self) -> None:
        """The relay stops."""
        self._release(None)

    def _release(self, left: str | None) -> None:
        self.over = True
        self.settle(left)
        if self.at_server is not None:
            self.at_server.close()
            self.at_server = None

    def settle(self, left: str | None) -> None:
        """The server is done with this exchange's call."""
        running = self.running
        if running is not None and not running.over:
            self.context.custody.settle(running, left)

    # --- waiting at a held message ---

    def wait(self, ticket: Ticket, then: Callable[[Outgoing], None]) -> None:
        """Wait until a ticket is answered, or the client leaves."""
        self.ticket, self._then = ticket, then
        if self.place.session is not None and self.call is not None:
            self.place.session.waiting[self.call.id] = ticket
        ticket.answered.add_done_callback(self._ticket_answered)
        if self.client.gone:
            self.client_gone()

    def _ticket_answered(self, answered: asyncio.Future[Outgoing]) -> None:
        if self.ticket is None or self.over:
            return
        self._leave_ticket()
        self.step(self._then, answered.result())

    def _leave_ticket(self) -> None:
        session = self.place.session
        if session is not None and self.call is not None and session.waiting.get(self.call.id) is self.ticket:
            del session.waiting[self.call.id]
        self.ticket = None

    # --- the client ---

    def send(self, status: int, headers: Headers, body: bytes, keep_alive: bool | None = None) -> None:
        """Write a whole answer."""
        keep = self.head.keep_alive if keep_alive is None else keep_alive
        self.write(response_head(status, headers, length=len(body), keep_alive=keep), b"" if self.head.method == "HEAD" else body)

    def write(self, head: bytes, body: bytes) -> None:
        self.answered = True
        if body:
            self.client.released(body)
        if len(body) <= IN_LOOP:
            self.client.write(head + body)
        else:
            self.client.write(head)
            self.client.write(body)

    def fail(self, text: str) -> None:
        """Our own error: as JSON-RPC where a request waits, else as HTTP. The connection ends."""
        if not self.answered and not self.client.gone:
            words = answers.error(self.call.id if self.call else None, answers.UNREADABLE, f"Holdfast: {text}.")
            self.send(502 if self.call is None else 200, JSON, words, keep_alive=False)
        self.end(False)

    def server_bad(self, error: BadMessage) -> None:
        """What came from the server is not passed on."""
        self.context.custody.unreadable("response")
        self.fail(f"the guarded server's answer is refused: {error}")

    @property
    def runs_on(self) -> bool:
        """Whether the server's work goes on without its client.

        In the session era leaving is no cancel, so a call runs on to its end, and the same call made again meanwhile waits for that. In the
        stateless era it is one; streams that carry no call end with their reader, as do those the client can resume at the server
        (their events have ids), which would not be resumed there while their first reader seemed to be still listening.
        """
        return self.call is not None and self.place.transport is Transport.SESSION and not self.resumable

    def client_gone(self) -> None:
        """The client left. May come twice."""
        if self.over:
            return
        if self.ticket is not None:
            if not self.ticket.answered.done():
                self.context.spawn(self.ticket.failed())
                self._leave_ticket()
                self.end(False)
            return
        if self.call is not None and self.runs_on:
            self.context.custody.leave(self.call)
        if self.at_server is not None:
            self.at_server.client_gone()

    def client_pressed(self) -> None:
        if self.at_server is not None:
            self.at_server.client_pressed()


def _raise(error: BadMessage) -> None:
    raise error
