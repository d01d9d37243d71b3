"""Which request a JSON-RPC response answers: by where it was asked, which way, and its typed id. No call is ever too old.

Pure. An answer comes on the exchange that asked it, or on another stream of the same session: of the `Mcp-Session-Id` header, or of the
address that the HTTP+SSE pair's first event names. Two sessions never share an id, nor do a number and a string.
"""

from __future__ import annotations

from dataclasses import dataclass

from escrow import jsonrpc
from escrow.events import Direction
from escrow.flows.unit import Source, Unit
from escrow.http.head import BadMessage, Head

Scope = tuple[str, str] | tuple[Source, int]
_Key = tuple[Scope, Direction, type, int | str]


@dataclass(slots=True)
class PairCounts:
    """dropped: open calls that were let go because there were too many. alone: responses to nothing that was seen asked."""

    dropped: int = 0
    alone: int = 0


class Pairs:
    """Open calls, at most so many; of more, the oldest are let go, and counted."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[_Key, jsonrpc.Request] = {}
        self._streams: dict[tuple[Source, int], Scope] = {}
        """Event streams of the HTTP+SSE pair, and which session each belongs to."""
        self._endpoints: dict[Scope, None] = {}
        self.counts = PairCounts()

    def __len__(self) -> int:
        return len(self._open)

    def asked(self, request: jsonrpc.Request, unit: Unit) -> None:
        """A request was seen."""
        self._open[self._scopes(unit)[0], unit.direction, type(request.id), request.id] = request
        while len(self._open) > self._most:
            del self._open[next(iter(self._open))]
            self.counts.dropped += 1

    def answered(self, response: jsonrpc.Response, unit: Unit) -> jsonrpc.Request | None:
        """The request that a response answers; None where none was seen."""
        if response.id is None:
            return None
        asked = Direction.TO_SERVER if unit.direction is Direction.TO_CLIENT else Direction.TO_CLIENT
        for scope in self._scopes(unit):
            if (found := self._open.pop((scope, asked, type(response.id), response.id), None)) is not None:
                return found
        self.counts.alone += 1
        return None

    def endpoint(self, unit: Unit) -> None:
        """The HTTP+SSE pair's first event: messages posted there belong to this stream's exchange."""
        target = unit.raw.decode("latin-1")[:2048]
        if "://" in target:
            target = "/" + target.partition("://")[2].partition("/")[2]
        session: Scope = ("sse", _server(unit) + target)
        self._streams[unit.source, unit.exchange] = session
        self._endpoints[session] = None
        while len(self._endpoints) > self._most:
            del self._endpoints[next(iter(self._endpoints))]
            del self._streams[next(iter(self._streams))]

    def ended(self, unit: Unit) -> None:
        """An event stream is over."""
        session = self._streams.pop((unit.source, unit.exchange), None)
        if session is not None:
            self._endpoints.pop(session, None)

    def _scopes(self, unit: Unit) -> list[Scope]:
        """Where a message belongs, and in which other places its request may have been: the answer to `initialize` is the first to name a session."""
        scopes: list[Scope] = [("id", _server(unit) + name) for name in (_session(unit.asked), _session(unit.head)) if name is not None]
        exchange = (unit.source, unit.exchange)
        if exchange in self._streams:
            scopes.append(self._streams[exchange])
        asked = unit.asked or unit.head
        if asked is not None and (posted := ("sse", _server(unit) + asked.target)) in self._endpoints:
            scopes.append(posted)
        return [*scopes, exchange]


def _session(head: Head | None) -> str | None:
    if head is None:
        return None
    try:
        found = head.get(b"mcp-session-id")
    except BadMessage:
        return None
    return None if found is None else found.decode("latin-1")


def _server(unit: Unit) -> str:
    """Whose session it is: two servers may give out the same name."""
    connection = unit.connection
    return "" if connection is None else f"{connection.server.address} {connection.server.port} "
