"""The daemon's end of the taps: mapped rings and counters in, events out. Needs the descriptors and nothing else of the machine.

`read` is to be called when a ring's descriptor is readable, and every `POLL_S` besides: the kernel wakes a reader for 64 KiB, not for
each record, since a wake-up costs the server more than the copy.
"""

from __future__ import annotations

from dataclasses import dataclass

from enforcer.taps.counters import Counters, Counts
from enforcer.taps.decode import Decoder
from enforcer.taps.evidence import CipherSeen, FdGiven
from enforcer.taps.linking import Linker
from enforcer.taps.ring import Ring
from escrow.events import Event, ProcessEnded, TcpSlice, TlsClosed, TlsOpened

POLL_S = 0.01
AT_ONCE = 4096
"""Records of one ring in one `read`: bounds what is decoded before others get a turn."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Of one source, as the helper passes them. ring_bytes: the ring's size. source: `tap` or `tls`."""

    source: str
    ring: int
    counters: int
    ring_bytes: int


class Reader:
    """Of any number of sources. The descriptors stay the caller's."""

    def __init__(self, sources: list[Descriptors]) -> None:
        self._decoder = Decoder()
        self._linker = Linker()
        self._rings = [Ring(each.ring, each.ring_bytes) for each in sources]
        self._counters = [Counters(each.counters, each.source) for each in sources]
        self._links = len({each.source for each in sources}) > 1
        self._names = [each.source for each in sources]

    def fds(self) -> list[int]:
        """To wait on; readable when much is unread."""
        return [ring.fd for ring in self._rings]

    def read(self, now_ns: int, at_once: int = AT_ONCE) -> tuple[list[Event], bool]:
        """Events since the last call, and whether there are more at once. now_ns: CLOCK_MONOTONIC. at_once: records of one ring."""
        events: list[Event] = []
        more = False
        for ring in self._rings:
            starts = ring.take(at_once)
            more = more or len(starts) == at_once
            decoded = self._decoder.decode(ring.memory, starts)
            ring.release()
            linker, links = self._linker, self._links
            for one in decoded:
                if type(one) is TcpSlice:
                    events.append(one)
                    if links and one.data:
                        events += linker.saw_wire(one)
                elif isinstance(one, CipherSeen):
                    events += linker.saw_cipher(one)
                elif isinstance(one, FdGiven):
                    continue
                else:
                    if isinstance(one, TlsClosed):
                        linker.closed(one)
                    elif isinstance(one, TlsOpened):
                        linker.opened(one)
                    elif isinstance(one, ProcessEnded):
                        events += linker.ended(one)
                    events.append(one)
        events += self._linker.expire(now_ns)
        for counters in self._counters:
            events += counters.lost_since(now_ns)
        return events, more

    def fill(self) -> float:
        """How full the fullest ring is, 0 to 1: at 1, records are lost."""
        return max(ring.fill() for ring in self._rings)

    def counts(self) -> dict[str, Counts]:
        return {name: counters.read() for name, counters in zip(self._names, self._counters, strict=True)}

    def close(self) -> None:
        for ring in self._rings:
            ring.close()
        for counters in self._counters:
            counters.close()
