"""Accepts clients and takes their requests through, one after the other on each connection."""

from __future__ import annotations

import asyncio
import socket
import ssl

from enforcer.relay.exchange import Context, Exchange
from enforcer.relay.wire import BadMessage, Closed, Wire, response_head
from escrow import answers


class Listener:
    """Serves listening sockets. guarded_port: connections whose own port is another were not steered here, and are closed."""

    def __init__(self, context: Context, guarded_port: int | None, tls: ssl.SSLContext | None) -> None:
        self.context, self._port, self._tls = context, guarded_port, tls
        self._servers: list[asyncio.Server] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, listeners: tuple[socket.socket, ...]) -> None:
        for listener in listeners:
            self._servers.append(await asyncio.start_server(self._serve, sock=listener, limit=1 << 18, ssl=self._tls, backlog=4096))

    async def stop(self) -> None:
        """Accept nobody any more and end every exchange; what is held stays held."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            steered = self._port is None or writer.get_extra_info("sockname")[1] == self._port
            if steered and self.connections <= self.context.policy.bounds.connections:
                await self._requests(reader, writer)
        except (ConnectionError, OSError, Closed):
            pass
        finally:
            self._tasks.discard(task)
            self.connections -= 1
            writer.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bounds = self.context.policy.bounds
        wire = Wire(reader, client=True, max_head_bytes=bounds.head_bytes)
        first = True
        while not wire.gone.is_set():
            exchange: Exchange | None = None
            try:
                try:
                    async with asyncio.timeout(bounds.head_s if first else bounds.idle_s):
                        head = await wire.head()
                    if head is None:
                        return
                    if head.method == "CONNECT" or head.get(b"upgrade") is not None:
                        raise BadMessage("Upgrade and CONNECT are refused", 501)
                    if (head.get(b"expect") or b"").lower() == b"100-continue":
                        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    async with asyncio.timeout(bounds.head_s * 10):
                        body = await wire.body(bounds.request_bytes)
                except TimeoutError:
                    return
                first = False
                exchange = Exchange(self.context, wire, writer, head, body)
                watch = asyncio.ensure_future(wire.watch())
                try:
                    keep = await exchange.run()
                finally:
                    watch.cancel()
                    await asyncio.gather(watch, return_exceptions=True)
                if not keep:
                    break
            except BadMessage as error:
                self.context.custody.unreadable("request")
                if exchange is None or not exchange.answered:
                    await _refuse(writer, error)
                break
        if not writer.is_closing():
            await _linger(reader, writer)


async def _refuse(writer: asyncio.StreamWriter, error: BadMessage) -> None:
    text = answers.error(None, answers.UNREADABLE, f"Holdfast: {error}.")
    writer.write(response_head(error.status, ((b"content-type", b"application/json"),), length=len(text), keep_alive=False) + text)
    await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close our half and read what still comes, a little, so that a reset does not take the last answer away (RFC 9112, 9.6)."""
    if not writer.can_write_eof():
        return
    try:
        writer.write_eof()
        async with asyncio.timeout(1.0):
            for _ in range(64):
                if not await reader.read(65536):
                    break
    except (OSError, TimeoutError, RuntimeError):
        pass
