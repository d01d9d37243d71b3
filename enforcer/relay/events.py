"""An event stream from the server, event by event: each judged in order; a held one steps aside so that later ones pass."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from enforcer.custody import Outgoing, Ticket
from enforcer.relay import answering
from enforcer.relay.delivery import confirm, tell_server
from enforcer.relay.exchange import IN_LOOP, AtServer, Exchange
from enforcer.relay.head import relayed
from enforcer.relay.stream import ClientStream
from enforcer.relay.upstream import Connection
from escrow import answers, jsonrpc
from escrow.call import Call, Transport
from escrow.http.head import BadMessage, Head
from escrow.sse import Event, EventTooLarge, Reader

_T = TypeVar("_T")
_ENDPOINT = re.compile(r"/[\x21-\x7e]{0,2047}")
_EVENTS_A_TURN = 4
"""Events judged before other connections have their turn: a thousand streams that never end must not keep an honest client waiting."""
_MOST_HELD = 256
"""Held messages that one stream may have open."""


class EventRelay(AtServer):
    """See the module. It is the asker on the connection from the answer's head on."""

    def __init__(self, exchange: Exchange, connection: Connection, head: Head) -> None:
        self.exchange, self.head = exchange, head
        self._connection: Connection | None = connection
        context = exchange.context
        answering.learn_session(exchange, head)
        exchange.answered = True
        self.stream = ClientStream(exchange.client, relayed(head, None, exchange.head.keep_alive), context.policy.escrow.ping_s)
        self._reader = Reader(context.policy.bounds.result_bytes)
        self._queue: deque[Event] = deque()
        self._judging = False
        """Whether an event is with a slow judge, or others have their turn; later ones wait."""
        self._over = False
        """Whether the server sent the stream's end."""
        self._held: dict[Ticket, Call | None] = {}
        """Held messages, with the calls that they answer."""
        self._confirming = 0
        """Released ones that the client has not acknowledged yet."""
        self._left: str | None = None
        """The item that holds the answer to this exchange's own call."""
        if exchange.call is not None and exchange.place.session is not None:
            exchange.place.session.asked(exchange.call)

    # --- for the connection ---

    def server_head(self, head: Head) -> None:
        self.server_bad(BadMessage("a head comes where a body should"))

    def server_piece(self, data: bytes) -> None:
        try:
            self._queue.extend(self._reader.feed(data))
        except EventTooLarge:
            self._unreadable()
            self.finish(keep=False)
            return
        self._next()

    def server_end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if self.head.keep_alive:
                self.exchange.context.upstream.give_back(connection)
            else:
                connection.close()
        self._over = True
        self._next()
        self.stream.flush()

    def server_read(self) -> None:
        self.stream.flush()

    def server_lost(self) -> None:
        self._connection = None
        self.finish(keep=False)

    def server_bad(self, error: BadMessage) -> None:
        self.exchange.context.custody.unreadable("response")
        self.finish(keep=False)

    # --- for the exchange ---

    def close(self) -> None:
        """Nobody listens any more, on either side."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self.stream.abandon()
        self._queue.clear()
        for ticket in list(self._held):
            self._forget(ticket)
            if not self.exchange.context.stopping:
                self.exchange.context.spawn(ticket.failed())
        session = self.exchange.place.session
        if session is not None and session.stream is self.stream:
            session.stream = None

    def client_gone(self) -> None:
        exchange = self.exchange
        if self._over and not self._judging:
            self.finish(keep=False)
        elif not exchange.runs_on:
            exchange.end(False)
        elif exchange.running is not None:
            exchange.running.orphaned = True
            self.client_pressed()  # nobody has to take anything any more

    def client_pressed(self) -> None:
        """Read no more from the server while its events wait, for a judge or for the client."""
        if self._connection is not None:
            if self._judging or (self.exchange.client.paused and not self.exchange.client.gone):
                self._connection.pause()
            else:
                self._connection.resume()

    def finish(self, keep: bool) -> None:
        """The stream's end. keep: whether the client's connection may be used again."""
        self.stream.end()
        self.exchange.end(keep and self.exchange.head.keep_alive, self._left)

    # --- events ---

    def _next(self) -> None:
        """Take events until one has to wait."""
        taken = 0
        while self._queue and not self._judging and not self.exchange.over:
            if taken == _EVENTS_A_TURN:
                self._judging = True
                asyncio.get_running_loop().call_soon(self._again)
                break
            taken += 1
            self._event(self._queue.popleft())
        if self.exchange.over:
            return
        self.client_pressed()
        waiting = self._left is not None and (self._held or self._confirming)
        if self._over and not self._judging and (not waiting or self.exchange.client.gone):
            self.finish(keep=True)

    def _again(self) -> None:
        """The others had their turn."""
        if not self.exchange.over:
            self._judging = False
            self._next()
            self.stream.flush()

    def _event(self, event: Event) -> None:
        if event.name == "endpoint":
            self._endpoint(event)
        elif not event.data:
            self.stream.event(Event("message", b"", event.id, event.retry_ms))
        elif len(event.data) <= IN_LOOP:
            self._read(event, self._message(event.data))
        else:
            self._slowly(asyncio.to_thread(self._message, event.data), partial(self._read, event))
        self.exchange.resumable |= bool(event.id)

    def _slowly(self, work: Coroutine[Any, Any, _T], then: Callable[[_T], None]) -> None:
        self._judging = True
        self.exchange.later(work, partial(self._done, then))

    def _done(self, then: Callable[[_T], None], given: _T) -> None:
        self._judging = False
        then(given)
        if not self._judging:
            self._next()
        self.stream.flush()

    def _endpoint(self, event: Event) -> None:
        """The HTTP+SSE pair's first event: where the client is to post, as a path or as an address on the host it asked."""
        exchange = self.exchange
        text = event.data.decode("latin-1")
        target = text
        if not text.startswith("/"):
            try:
                parts = urlsplit(text)
            except ValueError:
                return
            if parts.scheme not in ("http", "https") or parts.netloc.encode("latin-1") != exchange.head.get(b"host"):
                return
            target = text.partition("://")[2].removeprefix(parts.netloc)
        if not _ENDPOINT.fullmatch(target) or target.startswith("//") or "#" in target or exchange.head.method != "GET":
            return
        place = exchange.place
        session = exchange.context.sessions.start("sse:" + target, place.principal, exchange.client.who)
        if session.principal != place.principal:
            return
        place.session, place.transport, session.stream = session, Transport.HTTP_SSE, self.stream
        self.stream.event(event)

    def _read(self, event: Event, message: jsonrpc.Message | None) -> None:
        if message is None:
            self._unreadable()
            return
        exchange, custody = self.exchange, self.exchange.context.custody
        if isinstance(message, jsonrpc.Request) and exchange.running is not None:
            exchange.running.asked_client = True
        arrival = answering.arriving(exchange, message)
        outcome = custody.receive_now(arrival)
        if outcome is None:
            self._slowly(custody.receive(arrival), partial(self._judged, event, message, arrival.call))
        else:
            self._judged(event, message, arrival.call, outcome)

    def _judged(self, event: Event, message: jsonrpc.Message, call: Call | None, outcome: Outgoing | Ticket) -> None:
        own = self.exchange.call is not None and call is self.exchange.call
        if own:
            self.exchange.settle(outcome.item_id or None)
        asks = isinstance(message, jsonrpc.Request)
        if isinstance(outcome, Outgoing):
            self._give(event, asks, outcome)
            return
        if own:
            self._left = outcome.item_id
        elif len(self._held) >= _MOST_HELD:
            self.exchange.context.spawn(outcome.failed())
            return
        self._held[outcome] = call
        session = self.exchange.place.session
        if session is not None and call is not None:
            session.waiting[call.id] = outcome
        outcome.answered.add_done_callback(partial(self._decided, outcome, Event("message", b"", event.id, event.retry_ms), asks))

    def _give(self, event: Event, asks: bool, outgoing: Outgoing) -> bool:
        """Write what goes out. Whether the client was given the message itself."""
        if outgoing.raw is None:
            return False
        if outgoing.why is not None and asks:
            self.exchange.context.spawn(tell_server(self.exchange, outgoing.raw))
            return False
        return self.stream.event(Event("message", outgoing.raw, event.id, event.retry_ms)) and outgoing.why is None

    def _decided(self, ticket: Ticket, event: Event, asks: bool, answered: asyncio.Future[Outgoing]) -> None:
        """A held message's outcome came."""
        if ticket not in self._held:
            return
        self._forget(ticket)
        outgoing = answered.result()
        if self._give(event, asks, outgoing):
            self._confirming += 1
            self.exchange.context.spawn(self._confirm(ticket))
        elif outgoing.raw is not None and outgoing.why is None:
            self.exchange.context.spawn(ticket.failed())
        self.stream.flush()
        self._next()

    async def _confirm(self, ticket: Ticket) -> None:
        await confirm(self.exchange.client.transport, ticket)
        self._confirming -= 1
        self._next()

    def _message(self, data: bytes) -> jsonrpc.Message | None:
        """An event's message, None where it is none."""
        shapes = self.exchange.context.shapes
        message = shapes.get(data)
        if message is None:
            try:
                message = jsonrpc.read(data)
            except jsonrpc.Unreadable:
                return None
            shapes.learn(message)
        return message

    def _forget(self, ticket: Ticket) -> None:
        call, session = self._held.pop(ticket), self.exchange.place.session
        if session is not None and call is not None and session.waiting.get(call.id) is ticket:
            del session.waiting[call.id]

    def _unreadable(self) -> None:
        exchange = self.exchange
        exchange.context.custody.unreadable("event")
        if exchange.call is not None:
            text = "Holdfast: the guarded server's answer is refused: it cannot be read in one way only."
            self.stream.event(Event("message", answers.error(exchange.call.id, answers.UNREADABLE, text)))
