"""Events and notes in, alarms and messages out.

Time is handled so that lateness is never taken for silence: `tick` takes the time first, then has the ring read to its end, and only then
tells the core that everything recorded before that time was given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from escrow.events import Event, Linked, Lost, TlsClosed, TlsEnd, Unlinked
from escrow.evidence.entry import Bypassed
from escrow.flows.bounds import Bounds
from escrow.flows.doors import Doors, Opened, Snapshot, Used
from escrow.flows.flows import Flows
from escrow.flows.messages import Message
from escrow.flows.notes import Note
from escrow.flows.observed import shown
from escrow.flows.outcome import Bypass, Outcome
from escrow.flows.reading import Reading
from escrow.flows.unit import Unit
from escrow.flows.witness import Witness

TICK_S = 0.1
_ALARMS = 100
"""Alarms of one minute that are told one by one; the rest are counted, and told as one."""
_MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that an operator must know. certain: a bypass, or an open door; else it could not be told.

    what: in our words. where: the connection or the door. outcome: of the core, None for a door or a summary.
    """

    certain: bool
    what: str
    where: str
    outcome: Outcome | None = None

    def entry(self) -> Bypassed:
        """For the evidence log."""
        unit = self.outcome.unit if self.outcome is not None else None
        return Bypassed(self.certain, self.what, self.where, unit.raw if unit is not None else b"")


class WitnessAdapter:
    """See the module.

    ports: the guarded ones; None where nothing is guarded (observe mode): then nothing is compared.
    alarm: called for each alarm. message: called for each message seen, in order; None where nobody judges them.
    drain: reads the taps' ring to its end, calling `events`.
    """

    def __init__(
        self,
        ports: frozenset[int] | None,
        alarm: Callable[[Alarm], None],
        message: Callable[[Message], None] | None = None,
        drain: Callable[[], None] | None = None,
        *,
        bounds: Bounds | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.flows = Flows(bounds)
        self.witness = None if ports is None else Witness(ports)
        self.reading = None if message is None else Reading(self.flows.bounds.calls)
        self.doors = Doors()
        self.doors_opened = self.doors_used = self.suppressed = 0
        self._alarm, self._message, self._drain, self._clock_ns = alarm, message, drain, clock_ns
        self._told, self._minute_ns = 0, 0

    def note(self, note: Note) -> None:
        """The relay did something, or is about to. To be called before the bytes are written."""
        if self.witness is not None:
            self.witness.note(note)

    def events(self, events: Iterable[Event]) -> None:
        """What was read from the ring, in its order."""
        batch: list[Event] = []
        for event in events:
            if isinstance(event, Linked | Unlinked | Lost | TlsClosed):
                self._units(self.flows.feed(batch))
                batch = []
                self._fact(event)
                self._units(self.flows.feed([event]))
            else:
                batch.append(event)
        self._units(self.flows.feed(batch))

    def snapshot(self, snapshot: Snapshot, servers: frozenset[int]) -> None:
        """The helper looked at the server's doors. servers: its processes."""
        if self.witness is not None:
            self.witness.servers = servers
        for change in self.doors.see(snapshot):
            where = f"{change.door.family.value} {change.door.address} of process {change.door.pid}"
            if isinstance(change, Used):
                self.doors_used += 1
                self._tell(Alarm(True, f"a connection passed the gate by, through an open door, from {change.peer}", where))
            elif isinstance(change, Opened):
                self.doors_opened += 1
                self._tell(Alarm(True, "the guarded server listens where no gate stands", where))

    def tick(self) -> None:
        """Time passes. Some times a second."""
        now_ns = self._clock_ns()
        if self._drain is not None:
            self._drain()
        self._units(self.flows.tick(now_ns))
        if self.witness is not None:
            self.witness.tick(now_ns)
            self._outcomes()
        if now_ns - self._minute_ns > _MINUTE_NS:
            left, self._told, self._minute_ns = self._told - _ALARMS, 0, now_ns
            if left > 0:
                self._alarm(Alarm(True, f"{left} more alarms in the last minute were counted, and not told one by one", ""))

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            self.tick()
            await asyncio.sleep(TICK_S)

    @property
    def clean(self) -> bool:
        """Whether nothing passed the gate by, as far as could be told, and no door is open."""
        return not self.doors.open and not self.doors_used and (self.witness is None or not (self.witness.tally.bypasses or self.witness.tally.unsure))

    def counters(self) -> dict[str, int]:
        """For metrics and `status`."""
        found = {
            "flows": self.flows.counts.flows,
            "flows_dropped": self.flows.counts.dropped,
            "messages_shed": self.flows.counts.shed,
            "holes": sum(self.flows.counts.holes.values()),
            "doors_open": len(self.doors.open),
            "doors_opened": self.doors_opened,
            "doors_used": self.doors_used,
            "alarms_suppressed": self.suppressed,
        }
        if self.witness is not None:
            tally = self.witness.tally
            found |= {
                "released_noted": tally.noted,
                "witnessed": tally.witnessed,
                "bypasses": tally.bypasses,
                "unsure": tally.unsure,
                "opaque_connections": tally.opaque,
                "records_lost": tally.lost_records,
            }
        return found

    # ---

    def _fact(self, event: Linked | Unlinked | Lost | TlsClosed) -> None:
        if self.witness is None:
            return
        if isinstance(event, Linked):
            self.witness.linked(event)
        elif isinstance(event, Unlinked):
            self.witness.unlinked(event)
        elif isinstance(event, Lost):
            self.witness.lost(event)
            self._outcomes()
        elif event.how is not TlsEnd.SHUTDOWN:
            self.witness.ended(event.object, event.time_ns)

    def _units(self, units: list[Unit]) -> None:
        for unit in units:
            if self.witness is not None:
                self.witness.saw(unit)
            if self.reading is not None and self._message is not None and (message := self.reading.read(unit)) is not None:
                self._message(message)
        if self.witness is not None and self.witness.out:
            self._outcomes()

    def _outcomes(self) -> None:
        assert self.witness is not None
        outcomes, self.witness.out = self.witness.out, []
        for outcome in outcomes:
            text = outcome.why.value if isinstance(outcome, Bypass) or not outcome.text else f"{outcome.why.value}: {outcome.text}"
            where = shown(outcome.unit.connection) if outcome.unit is not None else ""
            self._tell(Alarm(isinstance(outcome, Bypass), text, where, outcome))

    def _tell(self, alarm: Alarm) -> None:
        self._told += 1
        if self._told > _ALARMS:
            self.suppressed += 1
        else:
            self._alarm(alarm)
