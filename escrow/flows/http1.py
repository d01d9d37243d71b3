"""HTTP/1.1 as overheard: both directions of a connection, with holes; the reader is the gate's (`escrow.http.wire`).

A hole whose size is known, inside a body, costs that body only: the framing counts over it. Any other one ends the reading of its direction,
until a segment begins with what can only be a head; and because a body could have made that up, what follows is never complete again. Where we
joined a running connection, nobody could know when, only the first message is taken to be in doubt.
"""

from __future__ import annotations

import re
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from escrow.events import Direction
from escrow.flows.body import Body, Emit
from escrow.flows.bounds import Bounds
from escrow.flows.hole import ENDED, JOINED, Chunk, Hole
from escrow.flows.unit import Source, Unit, UnitKind
from escrow.http.head import BadMessage, Head
from escrow.http.wire import Closed, Heads, Wire

REQUEST = re.compile(rb"[A-Z]{3,16} [\x21-\x7e]{1,8192} HTTP/1\.[01]\r\n")
RESPONSE = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9][ \r]")
_ZEROS = bytes(65536)
_MOST_AHEAD = 256
NO_REQUEST = "the request was not seen"
AFTER_HEAD = "an answer to HEAD announces a body"


@dataclass(slots=True)
class _Side:
    """One direction. body: the message being read. deaf: nothing is read until a head is found. doubt: why nothing is complete any more.
    once: why the next message is not. held: an answer to HEAD, up to its end."""

    direction: Direction
    wire: Wire
    body: Body | None = None
    deaf: bool = False
    doubt: str = ""
    once: str = ""
    held: bytes = b""


@dataclass(slots=True)
class SharedHeads:
    """Heads read before, over all connections."""

    requests: Heads = field(default_factory=Heads)
    responses: Heads = field(default_factory=Heads)


class Http1:
    """Feed chunks of either direction in order; units come out of `emit`."""

    __slots__ = ("_ahead", "_asked", "_bounds", "_emit", "_heads", "_number", "_refused", "_request", "_response", "_source", "_stalled_ns")

    def __init__(self, source: Source, heads: SharedHeads, bounds: Bounds, emit: Emit) -> None:
        self._source, self._heads, self._bounds, self._emit = source, heads, bounds, emit
        self._request = _Side(Direction.TO_SERVER, self._wire(Direction.TO_SERVER))
        self._response = _Side(Direction.TO_CLIENT, self._wire(Direction.TO_CLIENT))
        self._asked: deque[tuple[int, Head]] = deque()
        """Requests without an answer."""
        self._number = 0
        self._refused = False
        """A request cannot be read: what is answered to it is its refusal."""
        self._stalled_ns: int | None = None
        """Since when an answer waits for its request: two processors may swap what they record."""
        self._ahead: deque[tuple[Chunk, int]] = deque()
        """What came behind such an answer."""

    @property
    def kept_bytes(self) -> int:
        """Bytes of bodies that are kept."""
        ahead = sum(len(chunk) for chunk, _ in self._ahead if isinstance(chunk, bytes))
        return ahead + sum(side.body.size for side in (self._request, self._response) if side.body is not None)

    def feed(self, direction: Direction, chunk: Chunk, time_ns: int) -> None:
        """Take the next chunk of a direction."""
        if direction is Direction.TO_SERVER:
            self._chunk(direction, chunk, time_ns)
            if self._stalled_ns is not None and self._asked:
                self._catch_up()
        elif self._stalled_ns is not None:
            self._ahead.append((chunk, time_ns))
            if len(self._ahead) > _MOST_AHEAD:
                self._give_up()
        else:
            self._chunk(direction, chunk, time_ns)

    def in_step(self, direction: Direction) -> bool:
        """Whether it does not matter where segments begin."""
        return not self._side(direction).deaf

    def tick(self, now_ns: int) -> None:
        """Time has passed: a request that was not seen by now was lost."""
        if self._stalled_ns is not None and now_ns - self._stalled_ns > self._bounds.hole_ns:
            self._give_up()

    def _catch_up(self) -> None:
        """Go on with the answers."""
        time_ns, self._stalled_ns = self._stalled_ns or 0, None
        self._take(self._response, time_ns)
        while self._ahead and self._stalled_ns is None:
            self._chunk(Direction.TO_CLIENT, *self._ahead.popleft())

    def _give_up(self) -> None:
        """Wait for no request any more."""
        self._response.doubt = self._response.doubt or NO_REQUEST
        self._catch_up()

    def _chunk(self, direction: Direction, chunk: Chunk, time_ns: int) -> None:
        if isinstance(chunk, bytes):
            self._data(direction, chunk, time_ns)
        elif isinstance(chunk, Hole):
            self._hole(direction, chunk, time_ns)
        else:
            self._end(direction, time_ns)

    def _data(self, direction: Direction, data: bytes, time_ns: int) -> None:
        side = self._side(direction)
        if side.deaf:
            if not (REQUEST if direction is Direction.TO_SERVER else RESPONSE).match(data):
                return
            side.deaf, side.wire = False, self._wire(direction)
            if direction is Direction.TO_CLIENT and len(self._asked) > 1:  # answers went past: nobody waits for more than the last
                self._asked = deque([self._asked[-1]])
        if side is self._response and (side.held or (side.wire.between and self._asked and self._asked[0][1].method == "HEAD")):
            data = self._answer_to_head(side, data)
        try:
            side.wire.feed(data)
        except BadMessage as error:
            self._take(side, time_ns)
            self._deafen(side, str(error), time_ns)
            self._refused = side is self._request
            if self._refused and self._stalled_ns is not None:
                self._catch_up()
            return
        self._take(side, time_ns)

    def _hole(self, direction: Direction, hole: Hole, time_ns: int) -> None:
        side = self._side(direction)
        if hole.size == 0:
            side.doubt = side.doubt or hole.why
            if side.body is not None:
                side.body.touch(hole.why, time_ns, all=True)
            else:
                self._broken(direction, hole.why, time_ns)
        elif side.body is None or hole.size is None or hole.size > self._bounds.message_bytes or side.deaf:
            self._deafen(side, hole.why, time_ns)
        else:
            body, left = side.body, hole.size
            body.touch(hole.why, time_ns)
            try:
                while left:
                    side.wire.feed(_ZEROS[:left])
                    left -= min(left, len(_ZEROS))
                    self._take(side, time_ns)
            except BadMessage:  # it reaches past the body
                self._take(side, time_ns)
                self._deafen(side, hole.why, time_ns)
                return
            if side.body is body:
                body.touch(hole.why, time_ns)  # an event in which a hole ends is touched, too

    def _end(self, direction: Direction, time_ns: int) -> None:
        side = self._side(direction)
        if side.deaf:
            return
        with suppress(Closed):
            side.wire.eof()
        self._take(side, time_ns)
        if side.body is not None:
            side.body.cut(ENDED, time_ns)
            side.body = None

    def shed(self, why: str) -> None:
        """Keep nothing of unfinished bodies."""
        for side in (self._request, self._response):
            if side.body is not None:
                side.body.drop(why)

    # ---

    def _side(self, direction: Direction) -> _Side:
        return self._request if direction is Direction.TO_SERVER else self._response

    def _wire(self, direction: Direction) -> Wire:
        asks = direction is Direction.TO_SERVER
        return Wire(self._heads.requests if asks else self._heads.responses, client=asks, max_head_bytes=self._bounds.head_bytes)

    def _take(self, side: _Side, time_ns: int) -> None:
        events = side.wire.events
        while events:
            event = events.popleft()
            if isinstance(event, bytes):
                if side.body is not None:
                    side.body.piece(event, time_ns)
            elif isinstance(event, Head):
                waits = side is self._response and not self._asked and event.status >= 200
                if waits and not (side.doubt or side.once or self._request.deaf):
                    events.appendleft(event)
                    self._stalled_ns = time_ns
                    return
                self._head(side, event, time_ns)
                if side.deaf:
                    return
            elif side.body is not None:
                side.body.end(time_ns)
                side.body = None

    def _head(self, side: _Side, head: Head, time_ns: int) -> None:
        why = side.doubt or side.once
        if side is self._request:
            number, asked = self._number, None
            self._number += 1
            self._asked.append((number, head))
            if len(self._asked) > self._bounds.exchanges:
                self._asked.popleft()
                self._response.doubt = self._response.doubt or NO_REQUEST
        else:
            if 100 <= head.status < 200:
                return
            if not self._asked:
                number, asked = -1, None
                if not self._refused:
                    why = side.doubt = why or NO_REQUEST
                self._refused = False
            else:
                number, asked = self._asked.popleft()
                if asked.method == "HEAD" and not side.wire.between:
                    self._deafen(side, AFTER_HEAD, time_ns)
                    return
        side.once = ""
        side.body = Body(self._emit, self._bounds, self._source, side.direction, number, head, asked, time_ns, why)

    def _answer_to_head(self, side: _Side, data: bytes) -> bytes:
        """Read the head of an answer that has no body, whatever it says; the bytes that follow it."""
        side.held += data
        end = side.held.find(b"\r\n\r\n") + 4
        if end < 4 and len(side.held) <= self._bounds.head_bytes:
            return b""
        raw, rest = (side.held[:end], side.held[end:]) if end > 3 else (side.held, b"")
        side.held = b""
        alone = Wire(Heads(), client=False, max_head_bytes=self._bounds.head_bytes)
        try:
            alone.feed(raw)
        except BadMessage:
            return raw + rest  # let the common way say what is wrong
        head = alone.events[0] if alone.events else None
        if isinstance(head, Head) and head.status >= 200:
            self._asked.popleft()
        return rest

    def _deafen(self, side: _Side, why: str, time_ns: int) -> None:
        if side.body is not None:
            side.body.cut(why, time_ns)
            side.body = None
        elif not side.deaf:
            self._broken(side.direction, why, time_ns)
        side.deaf, side.held = True, b""
        side.wire.events.clear()
        if why == JOINED:
            side.once = why
        else:
            side.doubt = side.doubt or why

    def _broken(self, direction: Direction, why: str, time_ns: int) -> None:
        self._emit(Unit(self._source, direction, UnitKind.BROKEN, began_ns=time_ns, time_ns=time_ns, why=why))
