"""One direction of a TLS object: slices of calls in, plaintext in order and holes out.

Pure. Calls are numbered by the tap, so a call that was lost shows as a number left out; how many bytes it had is not known.
"""

from __future__ import annotations

from bisect import insort

from escrow.events import TlsSlice
from escrow.flows.bounds import Bounds
from escrow.flows.hole import CUT, END, JOINED, LOST, NOT_CAPTURED, UNCONFIRMED, Chunk, Hole


class CallStream:
    """Feed slices; take what `out` has. from_start: whether the object was seen from its first call on."""

    __slots__ = ("_at", "_bounds", "_doubtful", "_sequence", "_stuck_ns", "_suspect", "_waiting", "ended", "out", "waiting_bytes")

    def __init__(self, bounds: Bounds, *, from_start: bool) -> None:
        self._bounds = bounds
        self.out: list[Chunk] = []
        self.ended = False
        self.waiting_bytes = 0
        self._sequence: int | None = 0 if from_start else None
        self._at = 0
        """Offset in the present call of the next byte."""
        self._waiting: list[TlsSlice] = []
        self._stuck_ns = 0
        self._suspect = self._doubtful = False

    def feed(self, slice: TlsSlice) -> None:
        if self._sequence is None:
            self.out.append(Hole(None, JOINED))
            self._sequence, self._at = slice.sequence, slice.offset
        if slice.sequence == self._sequence and slice.offset == self._at and not self._waiting:
            self._take(slice)
            return
        if (slice.sequence, slice.offset) < (self._sequence, self._at):
            return  # its place was given up
        insort(self._waiting, slice, key=_place)
        self.waiting_bytes += len(slice.data)
        self._stuck_ns = self._stuck_ns or slice.time_ns
        self._deliver(slice.time_ns)

    def lost(self) -> None:
        """Records were lost somewhere: see `TcpStream.lost`."""
        self._suspect = self._sequence is not None and not self.ended

    def tick(self, now_ns: int) -> None:
        if self._waiting and now_ns - self._stuck_ns > self._bounds.hole_ns:
            self._skip(now_ns)

    def close(self) -> None:
        """Nothing more is fed."""
        while self._waiting:
            self._skip(0)
        if not self.ended:
            if self._suspect or self._at:
                self.out.append(Hole(None, CUT))
            self.ended = True
            self.out.append(END)

    # ---

    def _deliver(self, now_ns: int) -> None:
        while self._waiting and _place(self._waiting[0]) == (self._sequence, self._at):
            slice = self._waiting.pop(0)
            self.waiting_bytes -= len(slice.data)
            self._stuck_ns = now_ns
            self._take(slice)
        if self.waiting_bytes > self._bounds.waiting_bytes or len(self._waiting) > 4096:
            self._skip(now_ns)
        if not self._waiting:
            self._stuck_ns = 0

    def _take(self, slice: TlsSlice) -> None:
        """The next slice in order."""
        self._suspect = False
        if not slice.confirmed and not self._doubtful:
            self._doubtful = True
            self.out.append(Hole(0, UNCONFIRMED))
        if slice.data:
            self.out.append(slice.data)
        if slice.missing:
            self.out.append(Hole(slice.missing, NOT_CAPTURED))
        self._at += len(slice.data) + slice.missing
        if self._at >= slice.total:
            self._sequence, self._at = slice.sequence + 1, 0

    def _skip(self, now_ns: int) -> None:
        """Go on with the first slice that waits."""
        slice = self._waiting[0]
        if slice.sequence == self._sequence and slice.offset > self._at:
            self.out.append(Hole(slice.offset - self._at, LOST))
        elif slice.sequence != self._sequence:
            self.out.append(Hole(None, LOST))
        else:  # slices of one call that overlap: the tap does not make such
            self._waiting.pop(0)
            self.waiting_bytes -= len(slice.data)
            self.out.append(Hole(0, LOST))
            return
        self._sequence, self._at = slice.sequence, slice.offset
        self._deliver(now_ns)


def _place(slice: TlsSlice) -> tuple[int, int]:
    return slice.sequence, slice.offset
