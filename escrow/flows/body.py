"""One message's body on its way: pieces in, units out. A body of events gives one unit for each, another body one at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from escrow.events import Direction
from escrow.flows.bounds import Bounds
from escrow.flows.coding import Undecodable, decoder
from escrow.flows.hole import ENDED
from escrow.flows.unit import Source, Unit, UnitKind
from escrow.http.head import BadMessage, Head
from escrow.sse import EventTooLarge, Reader

Emit = Callable[[Unit], None]

TOO_LONG: Final = "it is longer than what is read of one message"


class Body:
    """See the module. why: why the message is not complete, as far as is known when it begins."""

    # fmt: off
    __slots__ = (
        "_began_ns", "_bounds", "_dead", "_decoder", "_emit", "_events", "_fed", "_fixed", "_parts", "_streams", "_why", "asked", "direction", "exchange",
        "head", "size", "source",
    )
    # fmt: on

    def __init__(
        self, emit: Emit, bounds: Bounds, source: Source, direction: Direction, exchange: int, head: Head, asked: Head | None, time_ns: int, why: str
    ) -> None:
        self._emit, self._bounds = emit, bounds
        self.source, self.direction, self.exchange, self.head, self.asked = source, direction, exchange, head, asked
        self.size = 0
        self._fed = self._dead = False
        """Whether any of it came; whether nothing more of it can be read."""
        self._began_ns = time_ns
        self._parts: list[bytes] = []
        self._fixed = why
        """Why everything of it is incomplete."""
        self._why = ""
        """Why the present event is."""
        self._streams = direction is Direction.TO_CLIENT and is_event_stream(head)
        self._events = Reader(bounds.message_bytes) if self._streams else None
        try:
            self._decoder = decoder(head.get(b"content-encoding"))
        except (Undecodable, BadMessage) as error:
            self._fixed, self._decoder = self._fixed or str(error), decoder(None)
            self._dead = True

    def piece(self, data: bytes, time_ns: int) -> None:
        if not data or self._dead:
            return
        self._fed = True
        try:
            plain = self._decoder.decode(data, self._bounds.message_bytes)
        except Undecodable as error:
            self.drop(str(error))
            self._dead = True
            return
        if not self.size:
            self._began_ns = time_ns
        if self._events is not None:
            self.size += len(data)
            try:
                events = self._events.feed(plain)
            except EventTooLarge:
                self._fixed, self._dead = self._fixed or TOO_LONG, True
                self._unit(UnitKind.BROKEN, time_ns)
                return
            for event in events:
                if event.data:
                    self._unit(UnitKind.EVENT, time_ns, event.data, event.name)
                self._why = ""
        else:
            self.size += len(plain)
            if self.size > self._bounds.message_bytes:
                self.drop(TOO_LONG)
            else:
                self._parts.append(plain)

    def touch(self, why: str, time_ns: int, *, all: bool = False) -> None:
        """Bytes of it are missing or not certain. all: whatever is still to come of it, too."""
        if self._streams and not (self._why or self._fixed):  # at once: the event may never come, nor the stream's end
            self._why = why
            self._unit(UnitKind.BROKEN, time_ns)
        if all or self._events is None:
            self._fixed = self._fixed or why
        self._why = self._why or why

    def drop(self, why: str) -> None:
        """Keep nothing of it any more."""
        self._parts.clear()
        self._fixed = self._fixed or why

    def end(self, time_ns: int) -> None:
        """Its last byte was read."""
        if self._fed and not self._fixed:
            try:
                self._decoder.finish()
            except Undecodable as error:
                self._fixed = str(error)
        if self._streams:
            self._unit(UnitKind.STREAM_END, time_ns)
        elif self._parts or self._fixed:
            self._unit(UnitKind.BODY, time_ns, self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))

    def cut(self, why: str, time_ns: int) -> None:
        """It ends here without its end."""
        if why != ENDED:
            self.touch(why, time_ns, all=True)
        self._fixed = self._fixed or why
        self.end(time_ns)

    def _unit(self, kind: UnitKind, time_ns: int, raw: bytes = b"", event: str = "") -> None:
        source = self.source
        self._emit(Unit(source, self.direction, kind, self.exchange, self.head, self.asked, event, raw, self._began_ns, time_ns, self._fixed or self._why))


def is_event_stream(head: Head) -> bool:
    """Whether a response is an event stream: as the gate decides it (`enforcer/relay/forwarding.py`)."""
    try:
        return head.status == 200 and (head.get(b"content-type") or b"").split(b";")[0].strip().lower() == b"text/event-stream"
    except BadMessage:
        return False
