"""What is written in one turn of the event loop, sent at its end; at once where little is under way.

Waking a peer costs more than writing to it: of many messages that came at once, the first one sent wakes the peer, the others find it awake.
But gathering takes the loop one more turn, which a message that comes alone should not wait for.
"""

from __future__ import annotations

import asyncio

_FEW = 2
"""With so many answers due, or fewer, no others come in the same turn, or hardly any."""


class Outbox:
    """Everything the relay writes to sockets passes here, so that its order is kept. due: answers that the server still owes."""

    __slots__ = ("_waiting", "due")

    def __init__(self) -> None:
        self.due = 0
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        if not self._waiting:
            if self.due <= _FEW:
                _send(transport, data)
                return
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append((transport, data))

    def flush(self) -> None:
        """Send all of it now. Whoever ends a connection does so after this."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            _send(transport, data)


def _send(transport: asyncio.Transport, data: bytes) -> None:
    if transport.is_closing():
        return
    try:
        transport.write(data)
    except RuntimeError:  # its end was sent before: that is its own misfortune, and not that of those after it
        transport.abort()
