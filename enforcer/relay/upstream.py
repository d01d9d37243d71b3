"""Connections to the guarded server: opened as the mode says, reused where HTTP allows."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from enforcer.relay.noting import NoteTaker, link
from enforcer.relay.outbox import Outbox
from escrow import events as seen
from escrow.flows.digest import digest
from escrow.flows.notes import Closed as LinkClosed
from escrow.flows.notes import Dialed, Released
from escrow.http.head import BadMessage, Head
from escrow.http.wire import Closed, End, Heads, Wire

Opener = Callable[[socket.socket], Awaitable[socket.socket]]
"""Opens a connected socket to the server, for the client connection given."""

_IDLE_S = 3.0
"""Servers close idle connections after 5 s (uvicorn, node): reuse only younger ones."""
_MOST_IDLE = 64
_TOGETHER = 16 * 1024
"""A head and a body up to this size, in bytes, are written as one."""


class UpstreamDown(Exception):
    """The server cannot be reached."""


class Asker(Protocol):
    """Who waits for the answer on a connection. All of it is called from the loop, in the order of the wire."""

    def server_head(self, head: Head) -> None: ...
    def server_piece(self, data: bytes) -> None: ...
    def server_end(self) -> None: ...
    def server_read(self) -> None:
        """Everything of one read was given."""

    def server_lost(self) -> None:
        """The connection ended in the middle of the answer."""

    def server_bad(self, error: BadMessage) -> None:
        """What came is no HTTP, or passes a bound."""


class Connection(asyncio.Protocol):
    """One connection to the server: one request at a time."""

    def __init__(self, upstream: Upstream, key: str, known: seen.Connection | None = None) -> None:
        """known: as the witness knows it; None where there is no witness."""
        self.upstream, self.key, self._link = upstream, key, known
        self.wire = Wire(upstream.heads, client=False, max_head_bytes=upstream.max_head_bytes)
        self.asker: Asker | None = None
        self.idle_since = 0.0
        self.used = False
        """Whether it had carried a request before the present one."""
        self.owes = False
        """Whether an answer is due that has not come to its end."""
        self.transport: asyncio.Transport
        self._interim = False
        self._paused = False

    def ask(self, asker: Asker, head: bytes, body: bytes) -> None:
        """Send a request; its answer comes to the asker."""
        self.asker = asker
        outbox, note = self.upstream.outbox, self.upstream.note
        if not self.owes:
            self.owes = True
            outbox.due += 1
        if body and note is not None and self._link is not None:
            note(Released(digest(body), self._link, seen.Direction.TO_SERVER))
        if len(body) <= _TOGETHER:
            outbox.write(self.transport, head + body)
        else:
            outbox.write(self.transport, head)
            outbox.write(self.transport, body)

    def pause(self) -> None:
        """Read no more for now: nobody takes what comes."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def close(self) -> None:
        self.asker = None
        self.transport.close()

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.asker is None:  # nothing was asked: whatever it is would be taken for the next answer
            self.transport.close()
            return
        whole = self.wire.whole(data)
        if whole is not None and whole[0].status >= 200 and not self._interim:
            self._give_whole(self.asker, *whole)
            return
        problem: BadMessage | None = None
        try:
            self.wire.feed(data)
        except BadMessage as error:
            problem = error
        self._give()
        if problem is not None:
            if self.asker is not None:
                self.asker.server_bad(problem)
            self.close()
        elif self.asker is not None:
            self.asker.server_read()

    def eof_received(self) -> None:
        try:
            self.wire.eof()
        except Closed:
            return
        self._give()

    def connection_lost(self, exc: Exception | None) -> None:
        self.upstream.forget(self)
        if self._link is not None and self.upstream.note is not None:
            self.upstream.note(LinkClosed(self._link))
        if self.asker is not None:
            asker, self.asker = self.asker, None
            asker.server_lost()

    def _give_whole(self, asker: Asker, head: Head, body: bytes) -> None:
        """Hand over an answer that came at once."""
        asker.server_head(head)
        if body and self.asker is not None:
            self.asker.server_piece(body)
        if self.asker is not None:
            asker, self.asker = self.asker, None
            asker.server_end()

    def _give(self) -> None:
        """Hand over what was read. Interim answers (1xx) are dropped."""
        events = self.wire.events
        while events:
            if self.asker is None:  # more than was asked for
                events.clear()
                self.transport.close()
                return
            event = events.popleft()
            if isinstance(event, bytes):
                if self._interim:
                    self.asker.server_bad(BadMessage("an interim response has a body"))
                    self.close()
                else:
                    self.asker.server_piece(event)
            elif isinstance(event, End):
                if self._interim:
                    self._interim = False
                else:
                    asker, self.asker = self.asker, None
                    asker.server_end()
            elif event.status < 200:
                self._interim = True
            else:
                self.asker.server_head(event)


class Upstream:
    """The pool. Connections are kept apart by the local address they are bound to, since servers may trust an address."""

    def __init__(self, opener: Opener, max_head_bytes: int, connect_s: float, tls: ssl.SSLContext | None = None, hostname: str | None = None) -> None:
        self._open, self.max_head_bytes, self._connect_s = opener, max_head_bytes, connect_s
        self._tls, self._hostname = tls, hostname
        self.note: NoteTaker | None = None
        """The witness's; None where there is none."""
        self.heads = Heads()
        self.outbox = Outbox()
        self._idle: dict[str, list[Connection]] = {}

    def take(self, key: str) -> Connection | None:
        """A connection that was used before, for a client that came to the address `key`; None where a new one must be opened."""
        kept = self._idle.get(key)
        if not kept:
            return None
        young = asyncio.get_running_loop().time() - _IDLE_S
        while kept:
            connection = kept.pop()
            if connection.idle_since > young and not connection.transport.is_closing():
                connection.used = True
                return connection
            connection.close()
        return None

    async def open(self, client: asyncio.Transport, key: str) -> Connection:
        """A new connection for a client. Raises UpstreamDown."""
        loop, sock = asyncio.get_running_loop(), None
        try:
            async with asyncio.timeout(self._connect_s):
                sock = await self._open(client.get_extra_info("socket"))
                known = None if self.note is None else link(sock.getsockname(), sock.getpeername())
                if known is not None and self.note is not None:
                    self.note(Dialed(known, self._tls is not None))
                name = self._hostname if self._tls else None
                _, connection = await loop.create_connection(lambda: Connection(self, key, known), sock=sock, ssl=self._tls, server_hostname=name)
        except BaseException as error:
            if sock is not None:
                sock.close()
            if isinstance(error, OSError | TimeoutError):  # ssl.SSLError is one
                raise UpstreamDown(type(error).__name__) from None
            raise
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose last answer was read to its end and said keep-alive."""
        kept = self._idle.get(connection.key)
        if kept is None:
            kept = self._idle[connection.key] = []
        if len(kept) >= _MOST_IDLE or connection.transport.is_closing() or not connection.wire.between:
            connection.close()
            return
        if connection._paused:
            connection.resume()
        self._settled(connection)
        connection.idle_since = asyncio.get_running_loop().time()
        kept.append(connection)

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self._settled(connection)
        if connection in (kept := self._idle.get(connection.key, [])):
            kept.remove(connection)

    def _settled(self, connection: Connection) -> None:
        """No answer is due on it any more."""
        if connection.owes:
            connection.owes = False
            self.outbox.due -= 1

    def sweep(self) -> None:
        """Close what has been idle too long to be used again."""
        old = asyncio.get_running_loop().time() - _IDLE_S
        for key, kept in list(self._idle.items()):
            while kept and kept[0].idle_since < old:
                kept.pop(0).close()
            if not kept:
                del self._idle[key]

    def close(self) -> None:
        for kept in self._idle.values():
            for connection in kept:
                connection.close()
        self._idle.clear()
