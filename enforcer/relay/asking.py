"""The first half of an exchange: reading what a client asks, whose it is, and whether it may go on to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from enforcer.custody import Outgoing, Running, StoreFailed, Ticket
from enforcer.relay import answering
from enforcer.relay.context import Context
from enforcer.relay.delivery import finish_on_stream
from enforcer.relay.exchange import IN_LOOP, JSON, Exchange
from enforcer.relay.forwarding import Forwarding
from enforcer.relay.head import named
from enforcer.relay.sessions import Session
from escrow import answers, jsonrpc
from escrow.call import Call, Transport, call_of
from escrow.http.head import BadMessage, Head
from escrow.principal import Principal

_MODERN = b"2026-07-28"
_NAMED = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Methods whose requests repeat the name in the header."""
_LONGEST_NAME = 16 * 1024
"""Characters of a method, a tool or a URI: the policy's globs are matched with it in the loop."""


@dataclass(slots=True)
class Place:
    """Where a request belongs. principal: its session's, else whom its connection and headers name."""

    principal: Principal
    transport: Transport
    session: Session | None


def begin(exchange: Exchange) -> None:
    """Take a client's request on. Raises BadMessage."""
    head, body, context = exchange.head, exchange.body, exchange.context
    if not head.target.startswith("/"):
        raise BadMessage("the request target must be a path")
    client, authorization = exchange.client, head.get(b"authorization")
    own = context.identity.of_credential(authorization) if authorization is not None else client.who()
    exchange.place = place(context, head, own, client.who)
    if not body:
        _forward(exchange)
        return
    given = (head, body, exchange.place, context)
    if len(body) <= IN_LOOP:
        _asked(exchange, read(*given))
    else:
        exchange.later(asyncio.to_thread(read, *given), partial(_asked, exchange))


def place(context: Context, head: Head, own: Principal, peer: Callable[[], Principal]) -> Place:
    """own: whom the request names. peer: who is at the other end. Raises BadMessage where the policy or the session's owner forbids it."""
    if own.weak and context.policy.principal.require == "credential":
        raise BadMessage("the policy requires a credential (Authorization header)", 403)
    transport, session = Transport.SESSION, context.sessions.get("sse:" + head.target)
    if session is not None:
        transport = Transport.HTTP_SSE
    elif (session_id := head.get(b"mcp-session-id")) is not None:
        session = context.sessions.start("id:" + session_id.decode("latin-1"), own, peer)
    elif (version := head.get(b"mcp-protocol-version")) is not None and version >= _MODERN:
        transport = Transport.STATELESS
    if session is None:
        return Place(own, transport, None)
    if not session.belongs_to(own, peer):
        raise BadMessage("the session belongs to somebody else", 403)
    return Place(session.principal, transport, session)


def read(head: Head, body: bytes, at: Place, context: Context) -> tuple[jsonrpc.Message | None, Call | None]:
    """A request's message, None where it is none and passes as something else, and the call it makes, if it is one. Raises BadMessage."""
    message = context.shapes.get(body)
    if message is None:
        try:
            message = jsonrpc.read(body)
        except jsonrpc.Unreadable as error:
            if isinstance(error, jsonrpc.NotJson) and context.policy.passes(head.method, head.target):
                return None, None
            raise BadMessage(f"the request is refused: {error}") from None
        context.shapes.learn(message)
    method, names, name = named(head)
    own = None if isinstance(message, jsonrpc.Response) else message.method
    if method is not None and method != own:
        raise BadMessage("the Mcp-Method header and the body disagree")
    if own is not None and len(own) > _LONGEST_NAME:
        raise BadMessage("the method's name passes the bound")
    if not isinstance(message, jsonrpc.Request):
        return message, None
    call = call_of(message, server=context.server, principal=at.principal, session=at.session.name if at.session else None, transport=at.transport)
    if len(call.name) > _LONGEST_NAME:
        raise BadMessage("the name of what it asks for passes the bound")
    if names and message.method in _NAMED and name != call.name:
        raise BadMessage("the Mcp-Name header and the body disagree")
    return message, call


def _asked(exchange: Exchange, what: tuple[jsonrpc.Message | None, Call | None]) -> None:
    message, call = what
    custody, place = exchange.context.custody, exchange.place
    if call is not None and isinstance(message, jsonrpc.Request):
        exchange.call = call
        outcome = custody.ask_now(call, message)
        if outcome is None:
            exchange.later(custody.ask(call, message), partial(_allowed, exchange))
        else:
            _allowed(exchange, outcome)
    elif message is None:
        _forward(exchange)
    else:
        whose = place.principal, place.session.name if place.session else None
        may = custody.leaving_now(message, *whose)
        if may is None:
            exchange.later(custody.leaving(message, *whose), partial(_leaves, exchange, message))
        else:
            _leaves(exchange, message, may)


def _leaves(exchange: Exchange, message: jsonrpc.Message, may: bool) -> None:
    """A notification, or an answer to a request of the server's."""
    if not may:
        exchange.send(403, JSON, answers.error(None, answers.UNREADABLE, "Holdfast does not pass this message on to the server."))
        exchange.end(exchange.head.keep_alive)
        return
    if isinstance(message, jsonrpc.Notification) and message.method == "notifications/cancelled":
        _cancelled(exchange, message)
    _forward(exchange)


def _cancelled(exchange: Exchange, message: jsonrpc.Notification) -> None:
    """The client gave a call up: whoever waits for its held result leaves; the item stays for a retry. Without one, a retry is a new call."""
    asked, session = message.params.get("requestId"), exchange.place.session
    if session is None or isinstance(asked, bool) or not isinstance(asked, int | str):
        return
    if (found := session.pair(asked)) is not None:
        exchange.context.custody.cancelled(found[0])
    if ticket := session.waiting.pop(asked, None):
        exchange.context.spawn(_leave(ticket))


async def _leave(ticket: Ticket) -> None:
    await ticket.failed()
    if not ticket.answered.done():
        ticket.answered.set_result(Outgoing(None))


def _allowed(exchange: Exchange, outcome: Running | Ticket | Outgoing) -> None:
    """What custody says to a call."""
    session, call = exchange.place.session, exchange.call
    if isinstance(outcome, Running):
        exchange.running = outcome
        if session is not None and call is not None:
            session.asked(call)
        _forward(exchange)
    elif exchange.place.transport is Transport.HTTP_SSE and session is not None:
        exchange.send(202, (), b"")
        exchange.context.spawn(finish_on_stream(exchange, session, outcome))
        exchange.end(exchange.head.keep_alive)
    elif isinstance(outcome, Outgoing):
        answering.give(exchange, outcome, 200, JSON)
    else:
        exchange.wait(outcome, partial(_decided, exchange, outcome))


def _decided(exchange: Exchange, ticket: Ticket, outgoing: Outgoing) -> None:
    """What became of a call that did not run at once: an earlier run's result, our words, or leave to run."""
    if outgoing.proceed is None:
        answering.deliver(exchange, ticket, 200, JSON, outgoing)
    elif exchange.client.gone:
        exchange.context.spawn(ticket.failed())
        exchange.end(False)
    else:
        exchange.later(_recorded(ticket, outgoing.proceed), partial(_proceed, exchange))


async def _recorded(ticket: Ticket, running: Running) -> Running | None:
    """That the call runs is written down before it does; None where that failed."""
    try:
        await ticket.delivered()
    except StoreFailed:
        return None
    return running


def _proceed(exchange: Exchange, running: Running | None) -> None:
    if running is None:
        exchange.fail("the call could not be recorded, and did not run")
    else:
        _allowed(exchange, running)


def _forward(exchange: Exchange) -> None:
    responder = exchange.context.responder
    context, head = exchange.context, exchange.head
    if context.custody.locked is not None and context.policy.passes(head.method, head.target):
        raise BadMessage("a person has locked the server", 503)  # no message, and yet a way out: its path and query
    if responder.armed and (built_in := responder.answer(exchange.head, exchange.call)) is not None:
        exchange.forwarded = True
        answering.judge(exchange, built_in, 200, JSON)
    else:
        exchange.at_server = forwarding = Forwarding(exchange)
        forwarding.start()
