"""The second half of an exchange: what came as a whole body, judged, held or given."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from enforcer.custody import Arrival, Outgoing, Ticket
from enforcer.relay.delivery import confirm
from enforcer.relay.exchange import IN_LOOP, JSON, Exchange
from enforcer.relay.head import relayed, told
from escrow import jsonrpc
from escrow.http.head import BadMessage, Head, Headers

_OURS = b'{"error":"The guarded server answered with an error that is not MCP; Holdfast does not pass its text on."}'
_KEPT = frozenset({b"www-authenticate", b"allow", b"retry-after", b"mcp-session-id"})
"""Fields of an error that go on though its words do not."""


def learn_session(exchange: Exchange, head: Head) -> None:
    """A session begins with the answer that names it."""
    place, sessions = exchange.place, exchange.context.sessions
    if place.session is None and (session_id := head.get(b"mcp-session-id")) is not None:
        session = sessions.start("id:" + session_id.decode("latin-1"), place.principal, exchange.client.who)
        if session.principal != place.principal:
            raise BadMessage("it names a session of somebody else's")
        place.session = session


def whole(exchange: Exchange, head: Head, body: bytes) -> None:
    """A response with its whole body: a message, nothing, or something that only `passthrough` lets by."""
    if head.status == 200:
        learn_session(exchange, head)
    if exchange.head.method == "DELETE" and head.status < 300 and (ended := exchange.head.get(b"mcp-session-id")) is not None:
        exchange.context.sessions.end("id:" + ended.decode("latin-1"))
    if not body:
        exchange.write(relayed(head, 0, exchange.head.keep_alive), b"")
        exchange.end(exchange.head.keep_alive)
    elif len(body) <= IN_LOOP:
        _read(exchange, head, body, _message(body, exchange))
    else:
        exchange.later(asyncio.to_thread(_message, body, exchange), partial(_read, exchange, head, body))


def _message(body: bytes, exchange: Exchange) -> jsonrpc.Message | None:
    """The message in a body, None where there is none. Raises BadMessage."""
    shapes = exchange.context.shapes
    message = shapes.get(body)
    if message is None:
        try:
            value = jsonrpc.parse(body)
            if not jsonrpc.is_message(value):
                return None
            message = jsonrpc.classify(value, body)
        except jsonrpc.NotJson:
            return None
        except jsonrpc.Unreadable as error:
            raise BadMessage(str(error)) from None
        shapes.learn(message)
    call = exchange.call
    if call is not None and not (isinstance(message, jsonrpc.Response) and message.id in (call.id, None)):
        raise BadMessage("it does not answer the request")  # the client would wait for ever, or take it for another's answer
    return message


def _read(exchange: Exchange, head: Head, body: bytes, message: jsonrpc.Message | None) -> None:
    if message is not None:
        judge(exchange, message, head.status, head)
        return
    status, headers, text = _plain(head, body, exchange.context.policy.passes(exchange.head.method, exchange.head.target))
    exchange.send(status, headers, text)
    exchange.end(exchange.head.keep_alive)


def _plain(head: Head, body: bytes, passes: bool) -> tuple[int, Headers, bytes]:
    """What goes on of a body that is no message. Raises BadMessage where nothing does."""
    headers = told(head)
    if passes:
        return head.status, headers, body
    if head.status == 202:  # "Accepted", say servers of the HTTP+SSE pair; the status says it, and nobody reads the words
        return 202, tuple((n, v) for n, v in headers if n != b"content-type"), b""
    if head.status >= 400:
        return head.status, (*JSON, *((n, v) for n, v in headers if n in _KEPT)), _OURS
    raise BadMessage("it is not MCP, and the policy's passthrough does not name this path")


def judge(exchange: Exchange, message: jsonrpc.Message, status: int, headers: Head | Headers) -> None:
    """Have a message judged that came as a body, and give what custody makes of it."""
    exchange.body = b""
    session_id = headers.get(b"mcp-session-id") if isinstance(headers, Head) else None
    arrival = arriving(exchange, message, () if session_id is None else (("mcp-session-id", session_id.decode("latin-1")),))
    outcome = exchange.context.custody.receive_now(arrival)
    if outcome is None:
        exchange.later(exchange.context.custody.receive(arrival), partial(_judged, exchange, status, headers))
    else:
        _judged(exchange, status, headers, outcome)


def arriving(exchange: Exchange, message: jsonrpc.Message, headers: tuple[tuple[str, str], ...] = ()) -> Arrival:
    """A server's message on its way to the exchange's client."""
    place, call, own = exchange.place, None, exchange.call
    asked_at = exchange.started if own is not None else time.monotonic()
    session = place.session
    if isinstance(message, jsonrpc.Response):
        if own is not None and (message.id == own.id or message.id is None):
            call = own
        elif session is not None and (found := session.pair(message.id)) is not None:
            call, asked_at = found
    else:
        asked_at = time.monotonic()
    name = None if session is None else session.name
    return Arrival(message, call, exchange.context.server, place.principal, name, place.transport, asked_at, headers, not exchange.client.gone)


def _judged(exchange: Exchange, status: int, headers: Head | Headers, outcome: Outgoing | Ticket) -> None:
    if exchange.call is not None:
        exchange.settle(outcome.item_id or None)
    if isinstance(outcome, Ticket):
        fields = told(headers) if isinstance(headers, Head) else headers
        exchange.wait(outcome, partial(deliver, exchange, outcome, status, fields))
    else:
        give(exchange, outcome, status, headers)


def give(exchange: Exchange, outgoing: Outgoing, status: int, headers: Head | Headers) -> None:
    """Write what goes out at once."""
    keep_alive = exchange.head.keep_alive
    if outgoing.raw is None:
        exchange.send(202, (), b"")
    elif isinstance(headers, Head) and outgoing.why is None:
        exchange.write(relayed(headers, len(outgoing.raw), keep_alive), outgoing.raw)
    else:
        exchange.send(status if outgoing.why is None else 200, told(headers) if isinstance(headers, Head) else headers, outgoing.raw)
    exchange.end(keep_alive)


def deliver(exchange: Exchange, ticket: Ticket, status: int, headers: Headers, outgoing: Outgoing) -> None:
    """Write what a ticket gave, and tell the ticket what became of it."""
    keep_alive = exchange.head.keep_alive
    if outgoing.raw is None:
        exchange.send(202, (), b"")
        exchange.end(keep_alive)
        return
    extra = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in outgoing.headers)
    names = {name for name, _ in extra}
    released = outgoing.why is None
    exchange.send(status if released else 200, (*(h for h in headers if h[0] not in names), *extra), outgoing.raw)
    if released:
        exchange.later(confirm(exchange.client.transport, ticket), lambda _: exchange.end(keep_alive, ticket.item_id))
    else:
        exchange.end(keep_alive)
