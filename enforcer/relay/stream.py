"""What goes to a client bit by bit: an event stream; and knowing what its TCP has acknowledged."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from typing import Protocol

from escrow.sse import PING, Event, encode

_SO_NWRITE = 0x1024
"""macOS: bytes not yet acknowledged (sys/socket.h). Linux has SIOCOUTQ, the same number as TIOCOUTQ (man 7 tcp)."""

_TCP_CLOSE = 7
"""include/net/tcp_states.h"""


class Sink(Protocol):
    """The client's connection, as far as a stream needs it."""

    transport: asyncio.Transport

    @property
    def lost(self) -> bool:
        """Whether nothing can be written any more."""
        ...

    def write(self, data: bytes) -> None: ...
    def released(self, data: bytes) -> None: ...


def unacknowledged(transport: asyncio.Transport) -> int | None:
    """Bytes written that the peer's TCP has not acknowledged; None where the connection is gone."""
    if transport.is_closing():
        return None
    pending = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    try:
        if sys.platform == "linux" and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
            return None  # a reset after the peer's FIN: the event loop does not read any more and would not say so
        if sys.platform == "darwin":
            return pending + int(sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE))
        return pending + int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return None


async def acknowledged(transport: asyncio.Transport, within_s: float = 30.0) -> bool:
    """Wait until the peer's TCP has acknowledged everything. False: the connection broke, or it took too long."""
    wait_s = 0.001
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while (left := unacknowledged(transport)) != 0:
        if left is None or loop.time() > until:
            return False
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, 0.2)
    return True


class ClientStream:
    """Writes whole events, each a chunk, gathered until `flush`; pings while nothing is written."""

    def __init__(self, sink: Sink, head: bytes, ping_s: float) -> None:
        self.sink, self.over = sink, False
        self._out = [head]
        self._ping_s = ping_s
        self._timer = asyncio.get_running_loop().call_later(ping_s, self._ping)

    @property
    def closed(self) -> bool:
        """Whether nothing that is written would arrive."""
        return self.over or self.sink.lost

    def event(self, event: Event) -> bool:
        """Write an event with the next `flush`. False where the stream is over."""
        if self.closed:
            return False
        if event.data:
            self.sink.released(event.data)
        data = encode(event)
        self._out.append(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def flush(self) -> None:
        if self._out:
            self.sink.write(b"".join(self._out) if len(self._out) > 1 else self._out[0])
            self._out.clear()

    def end(self) -> None:
        """Write the last chunk."""
        if not self.closed:
            self._out.append(b"0\r\n\r\n")
            self.flush()
        self.abandon()

    def abandon(self) -> None:
        """Nothing more is written, not even an end: the client sees that the stream was cut off, or is gone."""
        self._timer.cancel()
        self.over = True

    def _ping(self) -> None:
        if not self.sink.lost and self.sink.transport.get_write_buffer_size() == 0:
            self._out.append(b"%x\r\n%b\r\n" % (len(PING), PING))
            self.flush()
        self._timer = asyncio.get_running_loop().call_later(self._ping_s, self._ping)
