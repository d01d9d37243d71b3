"""Accepts clients, and sweeps: one timer for all deadlines of all connections."""

from __future__ import annotations

import asyncio
import socket
import ssl

from enforcer.relay.client import Client
from enforcer.relay.context import Context

_SWEEP_S = 0.5
_UNSENT_BYTES = 128 * 1024
"""Most that the kernel takes for a client before it can be sent (man 7 tcp, TCP_NOTSENT_LOWAT): else megabytes for each that stops reading."""


class Listener:
    """Serves listening sockets. guarded_port: connections whose own port is another were not steered here, and are closed."""

    def __init__(self, context: Context, guarded_port: int | None, tls: ssl.SSLContext | None) -> None:
        self.context, self._port, self._tls = context, guarded_port, tls
        self._servers: list[asyncio.AbstractServer] = []
        self._clients: set[Client] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        return len(self._clients)

    async def start(self, listeners: tuple[socket.socket, ...]) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time
        for listener in listeners:
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)  # connections inherit it
            self._servers.append(await loop.create_server(lambda: Client(self.context, self), sock=listener, ssl=self._tls, backlog=4096))
        self._timer = loop.call_later(_SWEEP_S, self._sweep)

    async def stop(self) -> None:
        """Accept nobody any more and end every exchange; what is held stays held."""
        if self._timer is not None:
            self._timer.cancel()
        for server in self._servers:
            server.close()
        self.context.stopping = True
        for client in list(self._clients):
            client.stop()
        tasks = list(self.context.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- for the clients ---

    def admit(self, client: Client, port: int) -> bool:
        """Whether a new connection is served."""
        self._clients.add(client)
        steered = self._port is None or port == self._port
        return steered and len(self._clients) <= self.context.policy.bounds.connections

    def forget(self, client: Client) -> None:
        self._clients.discard(client)

    def _sweep(self) -> None:
        now = self.now()
        for client in list(self._clients):
            client.sweep(now)
        self.context.upstream.sweep()
        self._timer = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
