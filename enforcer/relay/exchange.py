"""One client request and all that comes of it.

What was judged is what is sent: a request's body goes on as it was parsed, a message comes back as custody gave it out.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import Any, TypeVar

from enforcer.custody import Arrival, Custody, Outgoing, Running, Ticket
from enforcer.relay.identity import Identity
from enforcer.relay.responder import Responder
from enforcer.relay.sessions import Session, Sessions
from enforcer.relay.stream import ClientStream, acknowledged
from enforcer.relay.upstream import Connection, Upstream, UpstreamDown
from enforcer.relay.wire import BadMessage, Closed, Head, Headers, Wire, request_head, response_head
from escrow import answers, jsonrpc
from escrow.call import Call, Transport, call_of
from escrow.policy import Policy
from escrow.principal import Principal
from escrow.sse import Event, EventTooLarge, Reader

_T = TypeVar("_T")
_ENDPOINT = re.compile(rb"/[\x21-\x7e]{0,2047}")
_MODERN = b"2026-07-28"
_IN_LOOP = 64 * 1024
"""Larger messages are parsed in a thread, so that other connections go on."""
_MOST_HELD = 256
"""Held messages that one stream may have open."""


@dataclass(slots=True)
class Context:
    """What every exchange shares."""

    policy: Policy
    server: str
    custody: Custody
    upstream: Upstream
    sessions: Sessions
    identity: Identity
    responder: Responder
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def spawn(self, work: asyncio.Task[None]) -> None:
        self.tasks.add(work)
        work.add_done_callback(self.tasks.discard)


class Exchange:
    """See the module. `run` says whether the client's connection may be used again."""

    def __init__(self, context: Context, wire: Wire, writer: asyncio.StreamWriter, head: Head, body: bytes) -> None:
        self.context, self.wire, self.writer, self.head, self.body = context, wire, writer, head, body
        self.started = time.monotonic()
        self.call: Call | None = None
        self.session: Session | None = None
        self.principal: Principal
        self.transport = Transport.SESSION
        self.answered = False
        self.running: Running | None = None
        self.resumable = False

    async def run(self) -> bool:
        """Take the request through. Raises BadMessage where it is refused before anything was sent."""
        if not self.head.target.startswith("/"):
            raise BadMessage("the request target must be a path")
        message = await self._read_request()
        self._place()
        if self.context.policy.principal.require == "credential" and self.principal.weak:
            raise BadMessage("the policy requires a credential (Authorization header)", 403)
        if isinstance(message, jsonrpc.Notification) and message.method == "notifications/cancelled":
            await self._cancelled(message)
        if isinstance(message, jsonrpc.Request):
            self.call = call_of(
                message, server=self.context.server, principal=self.principal, session=self.session.name if self.session else None, transport=self.transport
            )
            asked = await self.context.custody.ask(self.call, message)
            if isinstance(asked, Ticket):
                return await self._from_escrow(asked)
            if isinstance(asked, Outgoing):
                return await self._send(200, ((b"content-type", b"application/json"),), asked.raw or b"") and self.head.keep_alive
            self.running = asked
            if self.session:
                self.session.asked(self.call)
        left: str | None = None
        try:
            left, keep = await self._through()
            return keep
        finally:
            self._settle(left)

    def _settle(self, left: str | None) -> None:
        """This exchange's call is over."""
        if self.running is not None:
            self.context.custody.settle(self.running, left)

    # --- the request ---

    async def _read_request(self) -> jsonrpc.Message | None:
        if not self.body:
            return None
        try:
            message = await _read(self.body)
        except jsonrpc.Unreadable as error:
            if isinstance(error, jsonrpc.NotJson) and self._passes():
                return None
            raise BadMessage(f"the request is refused: {error}") from None
        method = self.head.get(b"mcp-method")
        if method is not None and method.decode("latin-1") != getattr(message, "method", None):
            raise BadMessage("the Mcp-Method header and the body disagree")
        return message

    def _passes(self) -> bool:
        return self.context.policy.passes(self.head.method, self.head.target)

    def _place(self) -> None:
        """Find transport, session and principal."""
        own = self.context.identity.of(self.writer, self.head.get(b"authorization"))
        version = self.head.get(b"mcp-protocol-version")
        session_id = self.head.get(b"mcp-session-id")
        if (session := self.context.sessions.get("sse:" + self.head.target)) is not None:
            self.transport, self.session = Transport.HTTP_SSE, session
        elif session_id is not None:
            self.session = self.context.sessions.start("id:" + session_id.decode("latin-1"), own)
        elif version is not None and version >= _MODERN:
            self.transport = Transport.STATELESS
        self.principal = self.session.principal if self.session else own

    async def _cancelled(self, message: jsonrpc.Notification) -> None:
        """The client gave a call up: whoever waits for its held result leaves; the item stays for a retry. Without one, a retry is a new call."""
        asked = message.params.get("requestId")
        if self.session is None or isinstance(asked, bool) or not isinstance(asked, int | str):
            return
        if (found := self.session.pair(asked)) is not None:
            self.context.custody.cancelled(found[0])
        if ticket := self.session.waiting.pop(asked, None):
            await ticket.failed()
            if not ticket.answered.done():
                ticket.answered.set_result(Outgoing(None))

    def _forwarded(self) -> Headers:
        """Bodies must stay readable: no compression, no ranges, no conditional answers."""
        return tuple(
            (n, v) for n, v in self.head.headers if n not in (b"accept-encoding", b"range", b"if-none-match", b"if-modified-since", b"x-holdfast-test")
        )

    # --- out of escrow, without the server ---

    async def _from_escrow(self, ticket: Ticket) -> bool:
        if self.transport is Transport.HTTP_SSE and self.session is not None:
            await self._send(202, (), b"")
            if (stream := self.session.stream) is not None:
                self.context.spawn(asyncio.ensure_future(_finish(stream, ticket, Event("message", b""))))
            else:
                await ticket.failed()
            return self.head.keep_alive
        return await self._body_from(ticket, 200, ((b"content-type", b"application/json"),))

    async def _body_from(self, ticket: Ticket, status: int, headers: Headers) -> bool:
        outgoing = await self._wait(ticket)
        if outgoing is None:
            return False
        if outgoing.raw is None:
            return await self._send(202, (), b"") and self.head.keep_alive
        extra = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in outgoing.headers)
        released = outgoing.why is None
        await self._send(status if released else 200, (*(h for h in headers if h[0] not in {n for n, _ in extra}), *extra), outgoing.raw)
        if released:
            await _confirm(self.writer, ticket)
        return self.head.keep_alive

    async def _wait(self, ticket: Ticket) -> Outgoing | None:
        """The ticket's answer; None where the client went away first."""
        if self.session and self.call:
            self.session.waiting[self.call.id] = ticket
        gone: asyncio.Future[Any] = asyncio.ensure_future(self.wire.gone.wait())
        try:
            await asyncio.wait({gone, ticket.answered}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if self.session and self.call:
                self.session.waiting.pop(self.call.id, None)
        if ticket.answered.done():
            return ticket.answered.result()
        await ticket.failed()
        return None

    async def _send(self, status: int, headers: Headers, body: bytes) -> bool:
        self.answered = True
        data = response_head(status, headers, length=len(body), keep_alive=self.head.keep_alive)
        try:
            self.writer.write(data if self.head.method == "HEAD" else data + body)
            await self.writer.drain()
        except (ConnectionError, OSError):
            return False
        return True

    # --- through the server ---

    async def _through(self) -> tuple[str | None, bool]:
        """Ask the server. Returns the id of an item left undelivered, and whether to keep the client's connection."""
        if (built_in := self.context.responder.answer(self.head, self.call)) is not None:
            return await self._message(built_in, 200, ((b"content-type", b"application/json"),))
        try:
            connection = await self.context.upstream.take(self.writer.get_extra_info("socket"))
        except UpstreamDown:
            return None, await self._fail(502, "the guarded server cannot be reached")
        keep_upstream = False
        try:
            try:
                head = await self._put(connection)
            except (Closed, ConnectionError, OSError):
                # The server closed an idle connection as we took it. A call may have begun to run and is never sent twice; the rest may.
                if not connection.used or self.call is not None:
                    raise
                connection.close()
                connection = await self.context.upstream.take(self.writer.get_extra_info("socket"), fresh=True)
                head = await self._put(connection)
            if head is None:
                return None, False
            kind = (head.get(b"content-type") or b"").split(b";")[0].strip().lower()
            if head.get(b"content-encoding") not in (None, b"identity"):
                raise BadMessage("it is compressed, though that was not asked for")
            if kind == b"text/event-stream" and head.status == 200:
                return await self._stream(connection, head)
            if self.head.method == "HEAD" or head.status in (204, 304):
                return None, await self._send(head.status, _kept(head), b"") and False
            body = await self._drain_body(connection)
            if body is None:
                return None, False
            if head.keep_alive:  # now, not after a person has decided
                keep_upstream = True
                self.context.upstream.give_back(connection)
            return await self._whole(head, body)
        except (Closed, ConnectionError, OSError, UpstreamDown):
            return None, await self._fail(502, "the guarded server closed the connection in the middle of its answer")
        except (BadMessage, EventTooLarge) as error:
            self.context.custody.unreadable("response")
            return None, await self._fail(502, f"the guarded server's answer is refused: {error}")
        finally:
            if not keep_upstream:
                connection.close()

    async def _put(self, connection: Connection) -> Head | None:
        """Send the request; the final response head, or None where the client left and the call may be cancelled."""
        connection.writer.write(request_head(self.head.method, self.head.target, self._forwarded(), len(self.body)) + self.body)
        work = asyncio.ensure_future(self._final_head(connection))
        return await self._unless_gone(work)

    async def _final_head(self, connection: Connection) -> Head:
        while True:
            head = await connection.wire.head()
            if head is None:
                raise Closed
            if head.status >= 200:
                return head
            if await connection.wire.chunk() is not None:
                raise BadMessage("an interim response has a body")

    async def _drain_body(self, connection: Connection) -> bytes | None:
        return await self._unless_gone(asyncio.ensure_future(connection.wire.body(self.context.policy.bounds.result_bytes)))

    async def _unless_gone(self, work: asyncio.Future[_T], *, runs_on: bool = True) -> _T | None:
        """Wait for work on the server's side; None where the client left and the call ends with it.

        In the session era leaving is no cancel, so a call runs on to its end, and the same call made again meanwhile waits for that. In the
        stateless era it is one; streams that carry no call end with their reader, as do those the client can resume at the server
        (their events have ids), which would not be resumed there while their first reader seemed to be still listening.
        runs_on: whether the work is the server's.
        """
        gone: asyncio.Future[Any] = asyncio.ensure_future(self.wire.gone.wait())
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and self.call is not None and self.transport is Transport.SESSION and runs_on and not self.resumable:
                if self.running is not None:
                    self.running.orphaned = True
                return await work
            return work.result() if work.done() else None
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def _whole(self, head: Head, body: bytes) -> tuple[str | None, bool]:
        """A response with its whole body: a message, nothing, or something that only `passthrough` lets by."""
        headers = _kept(head)
        if head.status == 200 and (session_id := head.get(b"mcp-session-id")) is not None and self.session is None:
            self.session = self.context.sessions.start("id:" + session_id.decode("latin-1"), self.principal)
        if self.head.method == "DELETE" and head.status < 300 and (ended := self.head.get(b"mcp-session-id")) is not None:
            self.context.sessions.end("id:" + ended.decode("latin-1"))
        if not body:
            return None, await self._send(head.status, headers, b"") and self.head.keep_alive
        try:
            value = await _parse(body)
            if jsonrpc.is_message(value):
                message = jsonrpc.classify(value, body)
                if self.call is not None and not (isinstance(message, jsonrpc.Response) and message.id in (self.call.id, None)):
                    raise BadMessage("it does not answer the request")  # the client would wait for ever, or take it for another's answer
                return await self._message(message, head.status, headers)
        except jsonrpc.NotJson:
            pass
        except jsonrpc.Unreadable as error:
            raise BadMessage(str(error)) from None
        if self._passes():
            return None, await self._send(head.status, headers, body) and self.head.keep_alive
        if head.status == 202:  # "Accepted", say servers of the HTTP+SSE pair; the status says it, and nobody reads the words
            return None, await self._send(202, tuple((n, v) for n, v in headers if n != b"content-type"), b"") and self.head.keep_alive
        if head.status >= 400:
            ours = b'{"error":"The guarded server answered with an error that is not MCP; Holdfast does not pass its text on."}'
            kept = tuple((n, v) for n, v in headers if n in (b"www-authenticate", b"allow", b"retry-after", b"mcp-session-id"))
            return None, await self._send(head.status, ((b"content-type", b"application/json"), *kept), ours) and self.head.keep_alive
        raise BadMessage("it is not MCP, and the policy's passthrough does not name this path")

    async def _message(self, message: jsonrpc.Message, status: int, headers: Headers) -> tuple[str | None, bool]:
        kept = tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in headers if n == b"mcp-session-id")
        arrival = self._arrival(message, kept)
        outcome = await self.context.custody.receive(arrival)
        if self.call is not None and arrival.call is self.call:
            self._settle(outcome.item_id or None)
        if isinstance(outcome, Ticket):
            keep = await self._body_from(outcome, status, headers)
            return outcome.item_id, keep
        if outcome.raw is None:
            return None, await self._send(202, (), b"") and self.head.keep_alive
        return None, await self._send(status if outcome.why is None else 200, headers, outcome.raw) and self.head.keep_alive

    def _arrival(self, message: jsonrpc.Message, headers: tuple[tuple[str, str], ...] = ()) -> Arrival:
        call, asked_at = None, self.started if self.call else time.monotonic()
        if isinstance(message, jsonrpc.Response):
            if self.call is not None and (message.id == self.call.id or message.id is None):
                call = self.call
            elif self.session is not None and (found := self.session.pair(message.id)) is not None:
                call, asked_at = found
            elif message.id is None:
                call = self.call
        else:
            asked_at = time.monotonic()
        transport = self.transport
        connected = not self.wire.gone.is_set()
        session = self.session.name if self.session else None
        return Arrival(message, call, self.context.server, self.principal, session, transport, asked_at, headers, connected)

    async def _fail(self, status: int, text: str) -> bool:
        """Our own error: as JSON-RPC where a request waits, else as HTTP. False: the connection ends."""
        if self.answered or self.wire.gone.is_set():
            return False
        if self.call is not None:
            await self._send(
                200 if status == 502 else status,
                ((b"content-type", b"application/json"),),
                answers.error(self.call.id, answers.UNREADABLE, f"Holdfast: {text}."),
            )
        else:
            await self._send(status, ((b"content-type", b"application/json"),), answers.error(None, answers.UNREADABLE, f"Holdfast: {text}."))
        return False

    # --- event streams ---

    async def _stream(self, connection: Connection, head: Head) -> tuple[str | None, bool]:
        """Relay an event stream: every event judged in order; a held one steps aside so that later ones pass."""
        if (session_id := head.get(b"mcp-session-id")) is not None and self.session is None:
            self.session = self.context.sessions.start("id:" + session_id.decode("latin-1"), self.principal)
            if self.call:
                self.session.asked(self.call)
        self.answered = True
        self.writer.write(response_head(200, _kept(head), length=None, keep_alive=self.head.keep_alive))
        stream = ClientStream(self.writer, self.context.policy.escrow.ping_s)
        held: set[asyncio.Task[None]] = set()
        left: list[str] = []
        try:
            finished = await self._events(connection, stream, held, left)
            if finished and left:
                await self._unless_gone(asyncio.gather(*held, return_exceptions=True), runs_on=False)
            for task in held:
                task.cancel()
            await asyncio.gather(*held, return_exceptions=True)
            await stream.end()
        finally:
            stream.abandon()
            if self.session is not None and self.session.stream is stream:
                self.session.stream = None
        return (left[0] if left else None), self.head.keep_alive and finished and not self.wire.gone.is_set()

    async def _events(self, connection: Connection, stream: ClientStream, held: set[asyncio.Task[None]], left: list[str]) -> bool:
        """Until the server ends the stream. False where it was cut off. left: ids of held results of this exchange's own call."""
        reader = Reader(self.context.policy.bounds.result_bytes)
        while True:
            try:
                chunk = await self._unless_gone(asyncio.ensure_future(connection.wire.chunk()))
                if chunk is None:
                    return not self.wire.gone.is_set() or self.call is not None
                events = reader.feed(chunk)
            except (Closed, ConnectionError, OSError):
                return False
            except EventTooLarge:
                await self._unreadable_event(stream)
                return False
            for event in events:
                self.resumable |= bool(event.id)
                await self._event(event, stream, held, left)

    async def _event(self, event: Event, stream: ClientStream, held: set[asyncio.Task[None]], left: list[str]) -> None:
        if event.name == "endpoint":
            if _ENDPOINT.fullmatch(event.data) and self.head.method == "GET":
                self.session = self.context.sessions.start("sse:" + event.data.decode("ascii"), self.principal)
                self.session.stream = stream
                self.transport = Transport.HTTP_SSE
                await stream.event(event)
            return
        if not event.data:
            await stream.event(Event("message", b"", event.id, event.retry_ms))
            return
        try:
            message = await _read(event.data)
        except jsonrpc.Unreadable:
            await self._unreadable_event(stream)
            return
        if isinstance(message, jsonrpc.Request) and self.running is not None:
            self.running.asked_client = True
        arrival = self._arrival(message)
        outcome = await self.context.custody.receive(arrival)
        shown = Event("message", b"", event.id, event.retry_ms)
        if self.call is not None and arrival.call is self.call:
            self._settle(outcome.item_id or None)
        if isinstance(outcome, Outgoing):
            if outcome.raw is not None and outcome.why is not None and isinstance(message, jsonrpc.Request):
                await self._tell_server(outcome.raw)
            elif outcome.raw is not None:
                await stream.event(Event("message", outcome.raw, event.id, event.retry_ms))
            return
        if self.call is not None and arrival.call is self.call:
            left.append(outcome.item_id)
        elif len(held) >= _MOST_HELD:
            await outcome.failed()
            return
        work = self._ask_back(stream, outcome, shown) if isinstance(message, jsonrpc.Request) else _finish(stream, outcome, shown)
        if self.session is not None and arrival.call is not None:
            self.session.waiting[arrival.call.id] = outcome
        task = asyncio.ensure_future(work)
        held.add(task)
        task.add_done_callback(held.discard)

    async def _unreadable_event(self, stream: ClientStream) -> None:
        self.context.custody.unreadable("event")
        if self.call is not None:
            text = "Holdfast: the guarded server's answer is refused: it cannot be read in one way only."
            await stream.event(Event("message", answers.error(self.call.id, answers.UNREADABLE, text)))

    async def _ask_back(self, stream: ClientStream, ticket: Ticket, event: Event) -> None:
        """A held request of the server's: to the client if it is released, else an error to the server."""
        outgoing = await _outcome(ticket)
        if outgoing.raw is None:
            return
        if outgoing.why is None:
            if await stream.event(Event("message", outgoing.raw, event.id, event.retry_ms)):
                await _confirm(stream.writer, ticket)
            return
        await self._tell_server(outgoing.raw)

    async def _tell_server(self, raw: bytes) -> None:
        """Answer a request of the server's that the client never saw."""
        endpoint = next((key for key in self.context.sessions.keys_of(self.session) if key.startswith("sse:")), "")[4:] or self.head.target
        dropped = (b"accept", b"last-event-id", b"content-type", b"mcp-method", b"mcp-name")
        headers = (
            *(h for h in self._forwarded() if h[0] not in dropped),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json, text/event-stream"),
        )
        if not any(name == b"mcp-session-id" for name, _ in headers) and not endpoint.startswith("/sse") and (key := self.context.sessions.id_of(self.session)):
            headers = (*headers, (b"mcp-session-id", key.encode("latin-1")))
        try:
            connection = await self.context.upstream.take(self.writer.get_extra_info("socket"), fresh=True)
            try:
                async with asyncio.timeout(self.context.policy.bounds.connect_s):
                    connection.writer.write(request_head("POST", endpoint, headers, len(raw)) + raw)
                    await self._final_head(connection)
            finally:
                connection.close()
        except (UpstreamDown, BadMessage, Closed, OSError, TimeoutError):
            self.context.custody.unreadable("answer to the server")


def _kept(head: Head) -> Headers:
    """A response's headers that go on to the client. Not its date or cookies' kin: all but framing and encoding."""
    return tuple((n, v) for n, v in head.headers if n not in (b"content-encoding", b"alt-svc"))


async def _parse(raw: bytes) -> object:
    return jsonrpc.parse(raw) if len(raw) <= _IN_LOOP else await asyncio.to_thread(jsonrpc.parse, raw)


async def _read(raw: bytes) -> jsonrpc.Message:
    return jsonrpc.classify(await _parse(raw), raw)


async def _confirm(writer: asyncio.StreamWriter, ticket: Ticket) -> None:
    """Say what became of sent bytes. Shielded: a client that leaves now must not leave the item half told."""
    await asyncio.shield(asyncio.ensure_future(_told(writer, ticket)))


async def _told(writer: asyncio.StreamWriter, ticket: Ticket) -> None:
    await (ticket.delivered() if await acknowledged(writer) else ticket.failed())


async def _outcome(ticket: Ticket) -> Outgoing:
    """The ticket's answer; where this task is cancelled (the stream ended), the waiter leaves."""
    try:
        return await ticket.outcome()
    except asyncio.CancelledError:
        await asyncio.shield(asyncio.ensure_future(ticket.failed()))
        raise


async def _finish(stream: ClientStream, ticket: Ticket, event: Event) -> None:
    """Write a held message's outcome into a stream when it comes."""
    outgoing = await _outcome(ticket)
    if outgoing.raw is None:
        return
    wrote = await stream.event(Event("message", outgoing.raw, event.id, event.retry_ms))
    if outgoing.why is None:
        if wrote:
            await _confirm(stream.writer, ticket)
        else:
            await ticket.failed()
