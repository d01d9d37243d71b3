"""What goes into custody and what comes out of it: plain data, and calls under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from escrow import jsonrpc
from escrow.answers import Why
from escrow.call import Call, Kind, Transport
from escrow.principal import Principal


class Arrival(NamedTuple):
    """A message from the server, on its way to a client.

    call: the client request it answers; None for a server's own request, a notification, or an answer nobody asked for.
    asked_at: monotonic seconds at which that request came (for other messages: at which they did).
    connected: whether a client is there to take it.
    """

    message: jsonrpc.Message
    call: Call | None
    server: str
    principal: Principal
    session: str | None
    transport: Transport
    asked_at: float
    headers: tuple[tuple[str, str], ...] = ()
    connected: bool = True

    @property
    def kind(self) -> Kind:
        if isinstance(self.message, jsonrpc.Request):
            return Kind.SERVER_REQUEST
        if isinstance(self.message, jsonrpc.Notification):
            return Kind.NOTIFICATION
        return self.call.kind if self.call else Kind.OTHER

    @property
    def method(self) -> str:
        return self.call.method if self.call else getattr(self.message, "method", "response")

    @property
    def tool(self) -> str:
        return self.call.name if self.call else self.method

    @property
    def answer_id(self) -> int | str | None:
        """Under which id our own words go out. Never an id that a server made up: it could be any text."""
        if isinstance(self.message, jsonrpc.Request):
            return self.message.id
        return self.call.id if self.call and isinstance(self.message, jsonrpc.Response) else None


@dataclass(slots=True)
class Running:
    """A call on its way through the server. settled: the id of the item it left behind for a retry, or None."""

    call: Call
    orphaned: bool = False
    asked_client: bool = False
    """The server asked the client something meanwhile: with that client gone the call may never end, so nobody waits for it."""
    settled: asyncio.Future[str | None] | None = None
    """Made by who waits for it."""
    over: bool = False
    on_over: Callable[[], None] | None = None
    """Called once it is."""


class Outgoing(NamedTuple):
    """What goes to the client: a message's bytes, or None for nothing. why: None for a release.

    proceed: the held *request* may go on now: tell its ticket `delivered`, then send it to the server as this call.
    """

    raw: bytes | None
    headers: tuple[tuple[str, str], ...] = ()
    why: Why | None = None
    item_id: str = ""
    proceed: Running | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A message stands in escrow. secret: stands and falls with its key; what evidence of it is salted with."""

    item_id: str
    secret: bytes


@dataclass(slots=True)
class Counters:
    """Since the daemon's start. refused: messages refused without being held; turned_away: calls refused before they ran."""

    judged: int = 0
    released: int = 0
    held: int = 0
    refused: int = 0
    turned_away: int = 0
    unreadable: int = 0
    trialled: int = field(default=0)
    """Messages that passed only because the policy tries a rule out."""
