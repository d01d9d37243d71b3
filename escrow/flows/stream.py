"""One direction of a TCP connection: segments as the wire carried them in, bytes in order and holes out.

Pure. Of bytes that came twice the first are taken, as receivers do; where a second copy differs, or cannot be compared any more, a hole of
no size says that the receiver may have got something else. Positions are absolute (0 is the first byte), so that nothing wraps around
but the sequence numbers. Sources: RFC 9293, 3.4 (sequence numbers), 3.8.4 (keep-alives).
"""

from __future__ import annotations

from bisect import insort

from escrow.events import TcpFlags, TcpGap, TcpSlice
from escrow.flows.bounds import Bounds
from escrow.flows.hole import AFTER_END, CONFLICT, CUT, END, FAR, JOINED, LOST, NOT_CAPTURED, UNCOMPARED, Chunk, Hole

_MASK = 0xFFFFFFFF
_HALF = 1 << 31
_FAR = 1 << 30
"""No window is larger (RFC 7323, 2.3)."""
_MOST_PIECES = 4096
_NONE = TcpFlags.NONE


class TcpStream:
    """Feed slices; take what `out` has. next: sequence number of the next byte in order; None before the stream's first segment."""

    # fmt: off
    __slots__ = (
        "_bounds", "_doubtful", "_end", "_gap", "_history", "_most_history", "_odd", "_reset", "_stuck_ns", "_suspect", "_waiting", "ended",
        "history_bytes", "next", "out", "position", "touched_ns", "waiting_bytes", "was_reset",
    )
    # fmt: on

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.next: int | None = None
        self.position = 0
        self.out: list[Chunk] = []
        self.ended = self.was_reset = False
        self.touched_ns = 0
        self.history_bytes = self.waiting_bytes = 0
        self._most_history = bounds.history_bytes
        self._history: list[bytes] = []
        self._waiting: list[tuple[int, int, bytes | None]] = []
        """(start, end, bytes), sorted, apart; None for bytes that were not captured."""
        self._stuck_ns = 0
        self._end: int | None = None
        self._reset: int | None = None
        self._gap: int | None = None
        """Where bytes went past unread: a hole there is not waited for."""
        self._suspect = False
        self._doubtful = False
        self._odd = True
        """Whether anything but the next bytes in order is to be thought of."""

    def feed(self, slice: TcpSlice) -> None:
        """Take one slice."""
        data, sequence = slice.data, slice.sequence
        self.touched_ns = slice.time_ns
        if sequence == self.next and not self._odd and slice.flags is _NONE and not slice.missing:
            if data:  # as `_give`: nearly every slice comes here
                size = len(data)
                self._suspect = False
                self.next = (sequence + size) & _MASK
                self.position += size
                self.out.append(data)
                self._history.append(data)
                self.history_bytes += size
                if self.history_bytes > self._most_history:
                    self._trim()
        else:
            self._feed(sequence, data, slice.missing, slice.flags, slice.time_ns)
            self._odd = bool(self.next is None or self._waiting or self.ended or self._end is not None or self._reset is not None or self._gap is not None)

    def _feed(self, sequence: int, data: bytes, missing: int, flags: TcpFlags, time_ns: int) -> None:
        if flags & TcpFlags.SYN:
            sequence = (sequence + 1) & _MASK
        if self.next is None:
            self.next = sequence
            if not flags & TcpFlags.SYN:
                self.out.append(Hole(None, JOINED))
                if not data and not missing and not flags:
                    return
        away = self._away(sequence)
        if abs(away) > _FAR:
            if flags & (TcpFlags.RST | TcpFlags.SYN):
                return  # no receiver believes it
            self._leap(sequence)
            away = 0
        start = self.position + away
        end = start + len(data)
        if self.ended and end + missing > self.position:
            self._doubt(AFTER_END)
            return
        if data:
            self._insert(start, end, data)
        if missing:
            self._insert(end, end + missing, None)
        if flags & TcpFlags.FIN and self._end is None:
            self._end = end + missing
        if flags & TcpFlags.RST and start >= self.position:
            self._reset = start
        self._deliver(time_ns)

    def gap(self, gap: TcpGap) -> None:
        """Bytes from a sequence number on went past unread."""
        if self.next is None:
            self.next = gap.sequence
            self.out.append(Hole(None, JOINED))
        away = self._away(gap.sequence)
        if -self._bounds.waiting_bytes < away < _FAR:
            self._gap = max(self.position + away, self.position)
            self._suspect = self._odd = True
            self._deliver(gap.time_ns)

    def lost(self) -> None:
        """Records were lost somewhere: whether this stream's tail is among them shows with its next byte, or its end."""
        self._suspect = self.next is not None and not self.ended

    def tick(self, now_ns: int) -> None:
        """Time has passed, and everything recorded before was fed."""
        if self._waiting and now_ns - self._stuck_ns > self._bounds.hole_ns:
            self._skip(now_ns)
        if self.history_bytes and now_ns - self.touched_ns > self._bounds.quiet_ns:
            self.forget()

    def close(self) -> None:
        """Nothing more is fed: what waits is given, with its holes."""
        while self._waiting:
            self._skip(0)
        if not self.ended and self.next is not None:
            if self._suspect or (self._end is not None and self._end > self.position):
                self.out.append(Hole(None, CUT))
            self.ended = True
            self.out.append(END)

    def forget(self) -> None:
        """Let the history go."""
        self._history.clear()
        self.history_bytes = 0

    def is_new(self, sequence: int) -> bool:
        """Whether a SYN with this sequence number begins another stream, and is no retransmission of this one's."""
        return self.next is not None and (self._away((sequence + 1) & _MASK) + self.position != 0 or self.ended)

    # ---

    def _away(self, sequence: int) -> int:
        assert self.next is not None
        return ((sequence - self.next + _HALF) & _MASK) - _HALF

    def _give(self, data: bytes) -> None:
        """The next bytes in order."""
        self.out.append(data)
        self.position += len(data)
        self._history.append(data)
        self.history_bytes += len(data)
        if self.history_bytes > self._most_history:
            self._trim()

    def _trim(self) -> None:
        """Let half of the history go: seldom, since each time costs more than a slice."""
        keep, at = self._most_history // 2, 0
        while self.history_bytes > keep and at < len(self._history) - 1:
            self.history_bytes -= len(self._history[at])
            at += 1
        del self._history[:at]

    def _hole(self, size: int, why: str) -> None:
        self.out.append(Hole(size, why))
        self.position += size
        self.forget()

    def _doubt(self, why: str) -> None:
        if not self._doubtful:
            self._doubtful = True
            self.out.append(Hole(0, why))

    def _leap(self, sequence: int) -> None:
        while self._waiting:
            self._skip(0)
        self.out.append(Hole(None, FAR))
        self.next = sequence
        self._end = self._reset = self._gap = None
        self.forget()

    def _insert(self, start: int, end: int, data: bytes | None) -> None:
        if start < self.position:
            if data is not None and not (data == b"\0" and end == self.position):  # a keep-alive of some kernels
                self._compare(start, data[: self.position - start])
            if end <= self.position:
                return
            data = None if data is None else data[self.position - start :]
            start = self.position
        if start == self.position and not self._waiting and data is not None:
            assert self.next is not None
            self.next = (self.next + len(data)) & _MASK
            self._give(data)
            return
        free = start
        new: list[tuple[int, int, bytes | None]] = []
        for at, to, held in self._waiting:
            if to <= start or at >= end:
                continue
            if at > free:
                new.append((free, at, None if data is None else data[free - start : at - start]))
            low, high = max(at, start), min(to, end)
            if data is not None and held is not None and held[low - at : high - at] != data[low - start : high - start]:
                self._doubt(CONFLICT)
            free = to
        if free < end:
            new.append((free, end, None if data is None else data[free - start :]))
        for piece in new:
            insort(self._waiting, piece, key=_start)
            self.waiting_bytes += piece[1] - piece[0] if piece[2] is not None else 0

    def _compare(self, start: int, data: bytes) -> None:
        """Bytes at or before `position` come again."""
        kept_from = self.position - self.history_bytes
        if start < kept_from:
            if max(start, 0) < min(start + len(data), kept_from):  # below 0 is what came before we joined
                self._doubt(UNCOMPARED)
            data, start = data[kept_from - start :], kept_from
        if not data:
            return
        history = b"".join(self._history)
        if history[start - kept_from : start - kept_from + len(data)] != data:
            self._doubt(CONFLICT)

    def _deliver(self, now_ns: int) -> None:
        while True:
            before = self.position
            while self._waiting and self._waiting[0][0] <= self.position:
                self._take()
            if self.position != before:
                self._suspect = False
                self._stuck_ns = now_ns
            if self._gap is not None and self.position > self._gap:
                self._gap = None
            if self._waiting:
                self._stuck_ns = self._stuck_ns or now_ns
                full = self.waiting_bytes > self._bounds.waiting_bytes or len(self._waiting) > _MOST_PIECES
                if full or self._gap == self.position:
                    self._skip(now_ns)
                    continue
            else:
                self._stuck_ns = 0
            break
        if not self.ended and not self._waiting and self.position in (self._end, self._reset):
            if self._gap is not None and self.position != self._end:
                self.out.append(Hole(None, CUT))
            self.ended, self._suspect = True, False
            self.was_reset = self.position != self._end
            self.out.append(END)

    def _take(self) -> None:
        """Give the first waiting piece, which is next in order."""
        start, end, data = self._waiting.pop(0)
        assert self.next is not None and start == self.position
        self.next = (self.next + end - start) & _MASK
        if data is None:
            self._hole(end - start, NOT_CAPTURED)
        else:
            self.waiting_bytes -= end - start
            self._give(data)

    def _skip(self, now_ns: int) -> None:
        """Give the hole before the first waiting piece up, and the piece."""
        start = self._waiting[0][0]
        assert self.next is not None
        self.next = (self.next + start - self.position) & _MASK
        if start > self.position:
            self._hole(start - self.position, LOST)
        self._stuck_ns = now_ns
        while self._waiting and self._waiting[0][0] == self.position:
            self._take()


def _start(piece: tuple[int, int, bytes | None]) -> int:
    return piece[0]
