"""Reading a known number of bytes from a child's socket."""

from __future__ import annotations

import asyncio
import socket


async def receive(sock: socket.socket, size: int) -> bytes:
    """Raises ConnectionError where the other end goes before."""
    loop = asyncio.get_running_loop()
    whole = bytearray()
    while len(whole) < size:
        part = await loop.sock_recv(sock, size - len(whole))
        if not part:
            raise ConnectionError("the other end has gone")
        whole += part
    return bytes(whole)
