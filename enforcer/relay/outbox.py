"""What is written in one turn of the event loop, sent at its end.

Waking a peer costs more than writing to it: of many messages that came at once, the first one sent wakes the peer, the others find it awake.
"""

from __future__ import annotations

import asyncio


class Outbox:
    """Everything the relay writes to sockets passes here, so that its order is kept."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append((transport, data))

    def flush(self) -> None:
        """Send all of it now. Whoever ends a connection does so after this."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if transport.is_closing():
                continue
            try:
                transport.write(data)
            except RuntimeError:  # its end was sent before: that is its own misfortune, and not that of those after it
                transport.abort()
