"""A client's event stream, and knowing what its TCP has acknowledged."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios

from escrow.sse import PING, Event, encode

_SO_NWRITE = 0x1024
"""macOS: bytes not yet acknowledged (sys/socket.h). Linux has SIOCOUTQ, the same number as TIOCOUTQ (man 7 tcp)."""


_TCP_CLOSE = 7
"""include/net/tcp_states.h"""


def unacknowledged(writer: asyncio.StreamWriter) -> int | None:
    """Bytes written that the peer's TCP has not acknowledged; None where the connection is gone."""
    if writer.is_closing():
        return None
    pending = writer.transport.get_write_buffer_size()
    sock = writer.get_extra_info("socket")
    try:
        if sys.platform == "linux" and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
            return None  # a reset after the peer's FIN: the event loop does not read any more and would not say so
        if sys.platform == "darwin":
            return pending + int(sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE))
        return pending + int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return None


async def acknowledged(writer: asyncio.StreamWriter, within_s: float = 30.0) -> bool:
    """Wait until the peer's TCP has acknowledged everything. False: the connection broke, or it took too long."""
    wait_s = 0.001
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while (left := unacknowledged(writer)) != 0:
        if left is None or loop.time() > until:
            return False
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, 0.2)
    return True


class ClientStream:
    """Writes whole events, chunk by chunk, one at a time; pings while nothing is written."""

    def __init__(self, writer: asyncio.StreamWriter, ping_s: float) -> None:
        self.writer = writer
        self._lock = asyncio.Lock()
        self._pinger = asyncio.ensure_future(self._ping(ping_s))
        self.over = False

    async def event(self, event: Event) -> bool:
        """Write an event. False where the stream is over."""
        return await self._write(encode(event))

    async def end(self) -> None:
        """Write the last chunk."""
        self._pinger.cancel()
        if not self.over and not self.writer.is_closing():
            self.over = True
            self.writer.write(b"0\r\n\r\n")
            await _drain(self.writer)

    def abandon(self) -> None:
        """The client is gone."""
        self._pinger.cancel()
        self.over = True

    async def _ping(self, ping_s: float) -> None:
        while True:
            await asyncio.sleep(ping_s)
            if self.writer.transport.get_write_buffer_size() == 0:
                await self._write(PING)

    async def _write(self, data: bytes) -> bool:
        async with self._lock:
            if self.over or self.writer.is_closing():
                return False
            self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            return await _drain(self.writer)


async def _drain(writer: asyncio.StreamWriter) -> bool:
    try:
        await writer.drain()
    except (ConnectionError, OSError):
        return False
    return True
