"""What takes its time at the end: knowing that held bytes arrived, and telling the server what its client never saw."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from enforcer.custody import Outgoing, Ticket
from enforcer.relay.head import asked, request_head
from enforcer.relay.sessions import Session
from enforcer.relay.stream import acknowledged
from enforcer.relay.upstream import UpstreamDown
from escrow.http.head import BadMessage, Head, Headers
from escrow.http.wire import Closed
from escrow.sse import Event

if TYPE_CHECKING:
    from enforcer.relay.exchange import Exchange


async def confirm(transport: asyncio.Transport, ticket: Ticket) -> None:
    """Say what became of sent bytes."""
    await (ticket.delivered() if await acknowledged(transport) else ticket.failed())


async def finish_on_stream(exchange: Exchange, session: Session, outcome: Outgoing | Ticket) -> None:
    """A call of the HTTP+SSE pair that does not run at once: what comes of it goes to the stream of the session's other connection."""
    stream = session.stream
    if stream is None:
        if isinstance(outcome, Ticket):
            await outcome.failed()
        return
    outgoing = await outcome.outcome() if isinstance(outcome, Ticket) else outcome
    if outgoing.proceed is not None and isinstance(outcome, Ticket):
        if stream.closed:
            await outcome.failed()
            return
        await outcome.delivered()  # raises where that cannot be recorded: then it does not run
        session.asked(outgoing.proceed.call)
        await post(exchange, exchange.head.target, asked(exchange.head), exchange.body)
        exchange.context.custody.settle(outgoing.proceed)
        return
    wrote = outgoing.raw is not None and stream.event(Event("message", outgoing.raw))
    stream.flush()
    if isinstance(outcome, Ticket) and outgoing.raw is not None and outgoing.why is None:
        await (confirm(stream.sink.transport, outcome) if wrote else outcome.failed())


async def tell_server(exchange: Exchange, raw: bytes) -> None:
    """Answer a request of the server's that the client never saw."""
    sessions, session = exchange.context.sessions, exchange.place.session
    endpoint = next((key for key in sessions.keys_of(session) if key.startswith("sse:")), "")[4:] or exchange.head.target
    dropped = (b"accept", b"last-event-id", b"content-type", b"mcp-method", b"mcp-name")
    headers: Headers = (
        *(h for h in asked(exchange.head) if h[0] not in dropped),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
    )
    if not any(name == b"mcp-session-id" for name, _ in headers) and not endpoint.startswith("/sse") and (key := sessions.id_of(session)):
        headers = (*headers, (b"mcp-session-id", key.encode("latin-1")))
    await post(exchange, endpoint, headers, raw)


async def post(exchange: Exchange, target: str, headers: Headers, body: bytes) -> None:
    """Send something whose answer nobody waits for, over a connection of its own."""
    context, client = exchange.context, exchange.client
    try:
        connection = await context.upstream.open(client.transport, client.local)
        reply = _Reply()
        try:
            async with asyncio.timeout(context.policy.bounds.connect_s):
                connection.ask(reply, request_head("POST", target, headers, len(body)), body)
                await reply.came
        finally:
            connection.close()
    except (UpstreamDown, BadMessage, Closed, OSError, TimeoutError):
        context.custody.unreadable("answer to the server")


class _Reply:
    """Waits for the head of an answer, and reads no further."""

    def __init__(self) -> None:
        self.came: asyncio.Future[Head] = asyncio.get_running_loop().create_future()

    def server_head(self, head: Head) -> None:
        if not self.came.done():
            self.came.set_result(head)

    def server_piece(self, data: bytes) -> None:
        pass

    def server_end(self) -> None:
        pass

    def server_read(self) -> None:
        pass

    def server_lost(self) -> None:
        if not self.came.done():
            self.came.set_exception(Closed())

    def server_bad(self, error: BadMessage) -> None:
        if not self.came.done():
            self.came.set_exception(error)
