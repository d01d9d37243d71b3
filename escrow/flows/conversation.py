"""Both directions of one flow: which protocol it is, by its first bytes, and then that protocol's reader."""

from __future__ import annotations

from typing import Final

from escrow.events import Direction
from escrow.flows.body import Emit
from escrow.flows.bounds import Bounds
from escrow.flows.hole import Chunk, Hole
from escrow.flows.http1 import Http1, SharedHeads
from escrow.flows.http2 import PREFACE, Http2
from escrow.flows.unit import Source, Unit, UnitKind

_PRI: Final = PREFACE[:14]
_UNDECIDED: Final = 9
"""First bytes of a server that are enough to know a SETTINGS frame by (RFC 9113, 3.4)."""


class Conversation:
    """Feed chunks of either direction in order; units come out of `emit`, first one that says that a direction has begun."""

    __slots__ = ("_begun", "_bounds", "_early", "_emit", "_heads", "_opaque", "_reader", "_source")

    def __init__(self, source: Source, heads: SharedHeads, bounds: Bounds, emit: Emit) -> None:
        self._source, self._heads, self._bounds, self._emit = source, heads, bounds, emit
        self._reader: Http1 | Http2 | None = None
        self._begun: set[Direction] = set()
        self._opaque: set[Direction] = set()
        self._early: dict[Direction, bytes] = {}
        """A direction's first bytes, too few to decide by."""

    @property
    def kept_bytes(self) -> int:
        return self._reader.kept_bytes if self._reader is not None else 0

    def in_step(self, direction: Direction) -> bool:
        """Whether it does not matter where segments of a direction begin. It does where a head is looked for."""
        return self._reader is not None and self._reader.in_step(direction)

    def tick(self, now_ns: int) -> None:
        """Time has passed."""
        if self._reader is not None:
            self._reader.tick(now_ns)

    def shed(self, why: str) -> None:
        """Keep nothing of unfinished messages."""
        if self._reader is not None:
            self._reader.shed(why)

    def feed(self, direction: Direction, chunk: Chunk, time_ns: int) -> None:
        if direction in self._opaque:
            return
        if type(chunk) is bytes and self._reader is not None and direction in self._begun and direction not in self._early:
            self._reader.feed(direction, chunk, time_ns)
            return
        if isinstance(chunk, bytes):
            if direction not in self._begun:
                self._begun.add(direction)
                self._emit(Unit(self._source, direction, UnitKind.FIRST, began_ns=time_ns, time_ns=time_ns))
                self._early[direction] = b""
            self._sniff(direction, self._early.get(direction, b"") + chunk, time_ns)
            return
        early = self._early.pop(direction, b"")
        if early or isinstance(chunk, Hole):
            if direction not in self._begun:
                self._begun.add(direction)
                self._emit(Unit(self._source, direction, UnitKind.FIRST, began_ns=time_ns, time_ns=time_ns))
            if self._reader is None:
                self._reader = Http1(self._source, self._heads, self._bounds, self._emit)
            if early:
                self._reader.feed(direction, early, time_ns)
        if self._reader is not None:
            self._reader.feed(direction, chunk, time_ns)

    def _sniff(self, direction: Direction, first: bytes, time_ns: int) -> None:
        """Decide by a direction's first bytes; keep them where they are too few."""
        if first[:1] == b"\x16":
            if len(first) < 2:
                self._early[direction] = first
                return
            if first[1] == 3:
                self._early.pop(direction, None)
                self._opaque.add(direction)
                self._emit(Unit(self._source, direction, UnitKind.OPAQUE, began_ns=time_ns, time_ns=time_ns))
                return
        if self._reader is None:
            if direction is Direction.TO_SERVER:
                two = first.startswith(_PRI)
                unsure = not two and _PRI.startswith(first)
            else:
                two = first[3:4] == b"\x04" and first[5:9] == bytes(4) and len(first) >= _UNDECIDED
                unsure = len(first) < _UNDECIDED and not first.startswith(b"H")
            if unsure:
                self._early[direction] = first
                return
            self._reader = Http2(self._source, self._bounds, self._emit) if two else Http1(self._source, self._heads, self._bounds, self._emit)
        self._early.pop(direction, None)
        self._reader.feed(direction, first, time_ns)
