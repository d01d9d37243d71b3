"""Connections to the guarded server: opened as the mode says, reused where HTTP allows."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from enforcer.relay.wire import Wire

Opener = Callable[[socket.socket], Awaitable[socket.socket]]
"""Opens a connected socket to the server, for the client connection given."""

_IDLE_S = 3.0
"""Servers close idle connections after 5 s (uvicorn, node): reuse only younger ones."""


class UpstreamDown(Exception):
    """The server cannot be reached."""


@dataclass(slots=True)
class Connection:
    wire: Wire
    writer: asyncio.StreamWriter
    key: str
    idle_since: float = 0.0
    used: bool = False

    def close(self) -> None:
        self.writer.close()


class Upstream:
    """The pool. Connections are kept apart by the local address they are bound to, since servers may trust an address."""

    def __init__(self, opener: Opener, max_head_bytes: int, connect_s: float, tls: ssl.SSLContext | None = None, hostname: str | None = None) -> None:
        self._open, self._max_head, self._connect_s = opener, max_head_bytes, connect_s
        self._tls, self._hostname = tls, hostname
        self._idle: dict[str, list[Connection]] = {}

    async def take(self, client: socket.socket, *, fresh: bool = False) -> Connection:
        """A connection for a client's request. fresh: not a reused one. Raises UpstreamDown."""
        key = str(client.getsockname()[0])
        kept = self._idle.get(key, [])
        while kept and not fresh:
            connection = kept.pop()
            if time.monotonic() - connection.idle_since < _IDLE_S and not connection.wire.reader.at_eof() and not connection.writer.is_closing():
                connection.used = True
                return connection
            connection.close()
        try:
            async with asyncio.timeout(self._connect_s):
                sock = await self._open(client)
                reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 18, ssl=self._tls, server_hostname=self._hostname if self._tls else None)
        except (OSError, TimeoutError, ssl.SSLError) as error:
            raise UpstreamDown(type(error).__name__) from None
        return Connection(Wire(reader, client=False, max_head_bytes=self._max_head), writer, key)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose last response was read to its end and said keep-alive."""
        kept = self._idle.setdefault(connection.key, [])
        if len(kept) >= 64 or connection.writer.is_closing():
            connection.close()
            return
        connection.idle_since = time.monotonic()
        kept.append(connection)

    def close(self) -> None:
        for kept in self._idle.values():
            for connection in kept:
                connection.close()
        self._idle.clear()
