"""One client's connection: requests in, one after the other, each taken through by an exchange.

What comes while an exchange is under way waits, within bounds. No timers here: the listener's sweep looks at `deadline`.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, cast

from enforcer.relay import asking
from enforcer.relay.context import Context
from enforcer.relay.exchange import Exchange
from enforcer.relay.head import ordinary, response_head
from enforcer.relay.noting import link
from escrow import answers
from escrow.events import Connection, Direction
from escrow.flows.digest import digest
from escrow.flows.notes import Accepted, Closed, Released
from escrow.http.head import BadMessage, Head
from escrow.http.wire import End, Wire
from escrow.principal import Principal

if TYPE_CHECKING:
    from enforcer.relay.listener import Listener

_MOST_WAITING = 64 * 1024
"""Bytes of further requests read while one is under way."""
_LINGER_S = 1.0
_LINGER_BYTES = 4 << 20
_STALL_S = 300.0
"""A client that takes nothing of what was written to it for so long is cut off."""


class Client(asyncio.Protocol):
    """See the module. `gone`: it will not take an answer any more, as far as one can know; `lost`: nothing can be written to it."""

    __slots__ = (
        "_advancing",
        "_head",
        "_lingered",
        "_lingering",
        "_listener",
        "_parts",
        "_peer",
        "_reading",
        "_size",
        "_stalled",
        "_waiting",
        "_waiting_bytes",
        "_wire",
        "context",
        "deadline",
        "exchange",
        "gone",
        "link",
        "local",
        "lost",
        "paused",
        "transport",
    )

    def __init__(self, context: Context, listener: Listener) -> None:
        self.context, self._listener = context, listener
        self.transport: asyncio.Transport
        self.local = ""
        """The address that the client came to."""
        self.link: Connection | None = None
        """As the witness knows it; None where there is no witness."""
        self._peer: Principal | None = None
        self.exchange: Exchange | None = None
        self.gone = self.lost = self.paused = False
        self.deadline = math.inf
        self._wire = Wire(context.heads, client=True, max_head_bytes=context.policy.bounds.head_bytes)
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._reading = True
        self._advancing = False
        self._lingering = False
        self._lingered = 0
        self._stalled: tuple[int, float] | None = None

    # --- for the exchange ---

    def who(self) -> Principal:
        """Who is at the other end by the connection alone; looked up once."""
        if self._peer is None:
            self._peer = self.context.identity.of_peer(self.transport)
        return self._peer

    def write(self, data: bytes) -> None:
        if not self.lost:
            self.context.upstream.outbox.write(self.transport, data)

    def released(self, data: bytes) -> None:
        """A whole body, or an event's data, is about to be written."""
        if self.link is not None and self.context.note is not None:
            self.context.note(Released(digest(data), self.link, Direction.TO_CLIENT))

    def _close(self) -> None:
        """After everything was sent."""
        self.context.upstream.outbox.flush()
        self.transport.close()

    def refuse(self, error: BadMessage) -> None:
        """The request cannot be taken on: say so, and end the connection."""
        self.context.custody.unreadable("request")
        text = answers.error(None, answers.UNREADABLE, f"Holdfast: {error}.")
        self.released(text)
        self.write(response_head(error.status, ((b"content-type", b"application/json"),), length=len(text), keep_alive=False) + text)
        self.exchange = None
        if self.lost:
            self._listener.forget(self)
        else:
            self._linger()

    def finished(self, keep: bool) -> None:
        """The exchange is over. keep: whether the connection may be used again."""
        self.exchange = None
        if self.lost:  # it ran on without its client
            self._listener.forget(self)
        elif self.gone:
            self._close()
        elif not keep:
            self._linger()
        else:
            self.deadline = self._listener.now() + self.context.policy.bounds.idle_s
            if (self._waiting or self._wire.events) and not self._advancing and not self.paused:
                self._advance()

    def stop(self) -> None:
        """The relay stops: what is held stays held."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.stop()
        self.transport.abort()

    def sweep(self, now: float) -> None:
        """Look whether it has taken too long over something."""
        if now > self.deadline:
            self.transport.close()
            return
        if self.paused and not self.lost:
            pending = self.transport.get_write_buffer_size()
            if self._stalled is None or self._stalled[0] != pending:
                self._stalled = (pending, now)
            elif now - self._stalled[1] > _STALL_S:
                self.transport.abort()

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("sockname")
        self.local = str(name[0])
        if self.context.note is not None and (known := link(transport.get_extra_info("peername"), name)) is not None:
            self.link = known
            self.context.note(Accepted(known, transport.get_extra_info("ssl_object") is not None))
        self.deadline = self._listener.now() + self.context.policy.bounds.head_s
        if not self._listener.admit(self, name[1]):
            self._lingering = True
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self.transport.close()
        elif self.exchange is not None or self._waiting or self.paused:
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._waiting_bytes >= _MOST_WAITING and self._reading:
                self._reading = False
                self.transport.pause_reading()
        elif self._head is None and (whole := self._wire.whole(data)) is not None:
            self._whole(*whole)
        else:
            self._read(data)
            self._advance()
            if self.exchange is None and self._head is None and not self._wire.between:  # a head in pieces
                self.deadline = min(self.deadline, self._listener.now() + self.context.policy.bounds.head_s)

    def eof_received(self) -> bool:
        self.gone = True
        if self._lingering or self.exchange is None:
            return False
        self.exchange.client_gone()
        return self.transport.get_extra_info("ssl_object") is None  # what is under way may still be written

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = self.lost = True
        if self.link is not None and self.context.note is not None:
            self.context.note(Closed(self.link))
        if self.exchange is not None:
            self.exchange.client_gone()
        if self.exchange is None:
            self._listener.forget(self)

    def pause_writing(self) -> None:
        self.paused = True
        if self.exchange is not None:
            self.exchange.client_pressed()

    def resume_writing(self) -> None:
        self.paused, self._stalled = False, None
        if self.exchange is not None:
            self.exchange.client_pressed()
        elif not self._lingering:
            self._advance()

    # --- requests ---

    def _read(self, data: bytes) -> None:
        try:
            self._wire.feed(data)
        except BadMessage as error:
            self._wire.events.clear()
            self.refuse(error)

    def _advance(self) -> None:
        """Begin the next request that is whole, until one takes its time."""
        self._advancing = True
        try:
            while self.exchange is None and not self._lingering and not self.gone and not self.paused:
                if not self._wire.events:
                    if not self._waiting:
                        break
                    data, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
                    self._read(data)
                    if not self._reading and not self._lingering:
                        self._reading = True
                        self.transport.resume_reading()
                    continue
                self._take()
        except BadMessage as error:
            self.refuse(error)
        finally:
            self._advancing = False

    def _take(self) -> None:
        """One event of the wire."""
        event = self._wire.events.popleft()
        if isinstance(event, Head):
            self._head, self._parts, self._size = event, [], 0
            self._headed(event)
            self.deadline = self._listener.now() + self.context.policy.bounds.head_s * 10
        elif isinstance(event, End):
            assert self._head is not None
            head, parts = self._head, self._parts
            self._head, self._parts = None, []
            self._begin(head, parts[0] if len(parts) == 1 else b"".join(parts))
        else:
            self._measured(len(event))
            self._parts.append(event)

    def _whole(self, head: Head, body: bytes) -> None:
        """A request that came at once."""
        try:
            if not ordinary(head):
                self._headed(head)
            self._size = 0
            self._measured(len(body))
        except BadMessage as error:
            self.refuse(error)
        else:
            self._begin(head, body)

    def _headed(self, head: Head) -> None:
        if not ordinary(head):
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _measured(self, size: int) -> None:
        self._size += size
        if self._size > self.context.policy.bounds.request_bytes:
            raise BadMessage("the body passes the bound", 413)

    def _begin(self, head: Head, body: bytes) -> None:
        self.deadline = math.inf
        self.exchange = exchange = Exchange(self.context, self, head, body)
        exchange.step(asking.begin, exchange)

    def _linger(self) -> None:
        """Close our half and read what still comes, a little, so that a reset does not take the last answer away (RFC 9112, 9.6)."""
        if self._lingering:
            return
        self._lingering = True
        self._waiting.clear()
        self._wire.events.clear()
        if self.lost or self.gone or not self.transport.can_write_eof():
            self._close()
            return
        self.context.upstream.outbox.flush()
        self.deadline = self._listener.now() + _LINGER_S
        self.transport.write_eof()
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()
