"""What HTTP carried, as the taps saw it: whole bodies and single events, and what kept them from being whole."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from escrow.events import Connection, Direction, Process, TlsObject
from escrow.http.head import Head

Source = Connection | TlsObject
"""Where bytes were seen: on a TCP connection by the socket filter, or in a TLS object by its process's probes."""


class UnitKind(Enum):
    """FIRST: a flow's first byte in this direction came; nothing else is known yet. BODY: a whole body. EVENT: one event of a stream.
    STREAM_END: an event stream is over. BROKEN: bytes that are nobody's whole message; `raw` is empty. OPAQUE: TLS begins; nothing more is
    read in this direction here."""

    FIRST = "first"
    BODY = "body"
    EVENT = "event"
    STREAM_END = "stream end"
    BROKEN = "broken"
    OPAQUE = "opaque"


@dataclass(frozen=True, slots=True)
class Unit:
    """See `UnitKind`.

    linked: the connection that a TLS object speaks on, where that was known by then. exchange: number of the request among its connection's (HTTP/2:
    the stream's number), -1 where no request was seen. head: of the message that carried it. asked: of the request that a response answers.
    event: the event's type. raw: the body without transfer and content codings, or the event's data. began_ns, time_ns: of its first and last
    byte. why: why it is not complete; "" where it is.
    """

    source: Source
    direction: Direction
    kind: UnitKind
    exchange: int = -1
    head: Head | None = None
    asked: Head | None = None
    event: str = ""
    raw: bytes = b""
    began_ns: int = 0
    time_ns: int = 0
    why: str = ""
    linked: Connection | None = None

    @property
    def connection(self) -> Connection | None:
        """On which connection it was; None where it is not known (yet) on which one a TLS object speaks."""
        return self.source if isinstance(self.source, Connection) else self.linked

    @property
    def complete(self) -> bool:
        """Whether every byte of it was seen, and is what the receiver got."""
        return not self.why

    @property
    def process(self) -> Process | None:
        """Whose TLS object it was seen in."""
        return self.source.process if isinstance(self.source, TlsObject) else None
