"""The kernel side's counters, mapped: what was seen, what was given, and what was lost and why."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

from enforcer.taps.records import COUNTERS, Counter
from escrow.events import Lost

_ALL = struct.Struct(f"={COUNTERS}Q")
_REASONS = {
    Counter.LOST_RING_FULL: "ring full",
    Counter.LOST_UNREADABLE: "unreadable",
    Counter.LOST_FRAGMENT: "fragment",
    Counter.LOST_HEADERS: "headers",
    Counter.LOST_TOO_LONG: "too long",
    Counter.LOST_NO_STATE: "no state",
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Since loading. total: packets on every interface, or finished calls of the probes. duplicate: second sights of a loopback packet, or
    calls that carried nothing. matched: packets of a guarded port, or calls that carried bytes. captured: records given."""

    total: int
    duplicate: int
    matched: int
    captured: int
    captured_bytes: int
    lost: dict[str, tuple[int, int]]
    """Reason → records, payload bytes."""


class Counters:
    """fd: of the array map, which was made with BPF_F_MMAPABLE. source: `tap` or `tls`."""

    def __init__(self, fd: int, source: str) -> None:
        self._memory = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        self._source = source
        self._said: dict[str, tuple[int, int]] = dict.fromkeys(_REASONS.values(), (0, 0))

    def read(self) -> Counts:
        values = _ALL.unpack_from(self._memory)
        lost = {reason: (values[at], values[at + 1]) for at, reason in _REASONS.items()}
        total, duplicate, matched, captured, captured_bytes = values[: Counter.LOST_RING_FULL]
        return Counts(total, duplicate, matched, captured, captured_bytes, lost)

    def lost_since(self, time_ns: int) -> list[Lost]:
        """What was lost since the last time this was asked."""
        events = []
        for reason, (records, payload) in self.read().lost.items():
            before = self._said[reason]
            if (records, payload) != before:
                events.append(Lost(self._source, time_ns, reason, records - before[0], payload - before[1]))
                self._said[reason] = (records, payload)
        return events

    def close(self) -> None:
        self._memory.close()
