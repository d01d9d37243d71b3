"""The taps, wired: the rings' events go to the witness, the doors' snapshots too, and what they find goes to the log and to `status`.

Two places run it: beside a gate the witness's own process (`enforcer/witness/process.py`), in observe mode the daemon, whose judges take the messages.
Work is bounded in each turn of the loop: some records at a time, and others in between. Time is told to the witness only once everything
that had been recorded by then was read, and everything that the gate had done by then was noted.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from enforcer.helper import wire
from enforcer.helper.sights import (
    MAX_BYTES,
    SIGHTS,
    AddressesSeen,
    DoorsHidden,
    DoorsSeen,
    NamesSeen,
    Sight,
    Source,
    TapAbsent,
    TapAttached,
    TargetsSeen,
    descriptors_of,
)
from enforcer.taps.reader import Descriptors, Reader
from enforcer.witness import Alarm, WitnessAdapter
from enforcer.witness.local import LocalAddresses
from escrow.events import Lost
from escrow.evidence.entry import Bypassed
from escrow.flows.doors import Door, Family, Snapshot, Visit
from escrow.flows.messages import Message
from escrow.flows.outcome import Bypass, Unsure, Why
from escrow.flows.unit import UnitKind

_IDLE_S = 0.05
_TICK_S = 0.1
_IN_HASTE = 512
"""Records of one ring in one turn where the rings are fuller than `_FULL`: a record that is lost costs more than a call that is late."""
_FULL = 0.25
_KNOWN_NAMES = 65536
_TAPS: tuple[Source, ...] = ("tap", "tls")


@dataclass(frozen=True, slots=True)
class Pace:
    """at_once: records of one ring in one turn. share: for each second of reading others have this many, as long as the rings are no fuller than `_FULL`.
    busy_s: between two looks at rings that had something."""

    at_once: int
    share: float
    busy_s: float


IN_THE_DAEMON = Pace(at_once=32, share=3.0, busy_s=0.01)
"""About half a millisecond of the loop's time."""
BESIDE = Pace(at_once=512, share=0.0, busy_s=0.05)
"""Where nobody else waits but the notes. Each time that it wakes costs the gate; many records at once cost it no more than a few."""


class Watch:
    """port: the guarded one; None where nothing is guarded (observe mode). tls: whether the gate ends TLS.

    record: into the evidence log and to whoever follows. message: called for each message seen, where they are judged.
    noted_ns: until when everything that the gate did was noted; by default the notes come at once.
    """

    def __init__(
        self,
        port: int | None,
        tls: bool,
        record: Callable[[Bypassed], None],
        message: Callable[[Message], None] | None = None,
        noted_ns: Callable[[], int] = time.monotonic_ns,
        pace: Pace = IN_THE_DAEMON,
    ) -> None:
        self._tls, self._record, self._noted_ns, self._pace = tls, record, noted_ns, pace
        self._until_ns = 0
        self.adapter = WitnessAdapter(None if port is None else frozenset({port}), self._alarm, message, clock_ns=lambda: self._until_ns)
        self.names: dict[int, str] = {}
        self._state: dict[Source, str] = dict.fromkeys(_TAPS, "absent, because it is not attached yet")
        self._doors = "not looked at yet"
        self._targets: TargetsSeen | None = None
        self._passed: dict[Source, Descriptors] = {}
        self._spoken: set[Source] = set()
        self._socket: socket.socket | None = None
        self._reader: Reader | None = None
        self._task: asyncio.Task[None] | None = None
        self._servers: frozenset[int] = frozenset()
        self.problem = ""
        self._unprobed = self._left_out = self._handshakes = 0
        self._overflowed = False
        self._unlinked: set[int] = set()

    @property
    def attached(self) -> bool:
        """Whether anything is seen at all."""
        return self._reader is not None

    @property
    def bypassed(self) -> bool:
        """Whether something certainly passed the gate by since the start. A door that nobody used is none yet."""
        sights = 0 if self.adapter.witness is None else self.adapter.witness.tally.bypasses - self._handshakes
        return bool(sights or self.adapter.doors_used or self._overflowed)

    def join_taps(self, taps: socket.socket) -> None:
        """A process of the taps has come; its socket."""
        self._leave("")
        self._socket = taps
        taps.setblocking(False)
        asyncio.get_running_loop().add_reader(taps.fileno(), self._readable, taps)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._leave("")

    def name(self, pid: int | None) -> str:
        """Whose process it is, for people; "" where that is not known. None: of what was seen on the port, which is the server's."""
        if pid is None:
            return " and ".join(sorted({self.names.get(each, "") for each in self._servers} - {""}))[:128]
        return self.names.get(pid, "")

    def status(self) -> dict[str, Any]:
        counts = {} if self._reader is None else {name: asdict(found) for name, found in self._reader.counts().items()}
        doors = [
            {"family": door.family.value, "address": door.address, "pid": door.pid, "name": self.name(door.pid)} for door in self.adapter.doors.open.values()
        ]
        targets = self._targets
        return {
            "taps": dict(self._state),
            "problem": self.problem,
            "counters": self.adapter.counters(),
            "records": counts,
            "doors": self._doors,
            "open_doors": doors,
            "doors_left_out": self._left_out,
            "tls_files_probed": 0 if targets is None else targets.probed,
            "not_covered": [] if targets is None else list(targets.uncovered),
            "bypassed": self.bypassed,
        }

    # --- what the taps' process says ---

    def _readable(self, taps: socket.socket) -> None:
        try:
            packet = wire.receive(taps, MAX_BYTES)
        except BlockingIOError:
            return
        except (OSError, wire.Malformed):
            return self._leave("its packets cannot be read")
        if packet is None:
            return self._leave("its process ended")
        data, descriptors = packet
        try:
            sight = SIGHTS.validate_json(data)
        except ValidationError:
            sight = None
        if sight is None or len(descriptors) != descriptors_of(sight):
            wire.close(descriptors)
            return self._leave("its packets cannot be read")
        try:
            self._take(sight, descriptors)
        except ValueError:  # no network's address
            self._leave("its packets cannot be read")

    def _take(self, sight: Sight, descriptors: list[int]) -> None:
        match sight:
            case TapAttached():
                self._passed[sight.source] = Descriptors(sight.source, descriptors[0], descriptors[1], sight.ring_bytes)
                self._state[sight.source] = "attached"
                self._heard(sight.source)
            case TapAbsent():
                self._state[sight.source] = f"absent, because {sight.why}"
                self._heard(sight.source)
            case DoorsSeen():
                self._doors = "watched"
                if sight.left_out > self._left_out:
                    self._overflowed = True  # whoever hides behind many
                    self._alarm(Alarm(True, f"{sight.left_out} more doors or connections of the guarded server than are listed", ""))
                self._left_out = sight.left_out
                doors = tuple(Door(Family(each.family), each.inode, each.address, each.pid) for each in sight.doors)
                self._servers = frozenset(sight.servers)
                self.adapter.snapshot(Snapshot(doors, tuple(Visit(each.door, each.key, each.peer) for each in sight.visits)), self._servers)
            case AddressesSeen() if self.adapter.witness is not None:
                self.adapter.witness.addresses = None if sight.networks is None else LocalAddresses(sight.networks)
            case AddressesSeen():
                pass
            case DoorsHidden():
                self._doors = f"not watched: {sight.why}"
            case TargetsSeen():
                if sight.unprobed > self._unprobed:
                    self.adapter.events([Lost("tls", time.monotonic_ns(), "unprobed", sight.unprobed - self._unprobed, 0)])
                self._targets, self._unprobed = sight, sight.unprobed
            case NamesSeen():
                if len(self.names) > _KNOWN_NAMES:
                    self.names.clear()
                self.names.update({each.pid: f"{each.name} in {each.group}" if each.group else each.name for each in sight.names})

    def _heard(self, source: Source) -> None:
        """Both are read together, so that what one sees can be linked to what the other sees."""
        self._spoken.add(source)
        if len(self._spoken) < len(_TAPS) or not self._passed:
            return
        try:
            self._reader = Reader(list(self._passed.values()))
        except (OSError, ValueError) as error:
            return self._leave(f"the rings cannot be mapped: {error}")

    def _leave(self, why: str) -> None:
        """The taps are gone, in order where `why` is empty; another process of theirs may come."""
        loop = asyncio.get_running_loop()
        if self._socket is not None:
            loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        for each in self._passed.values():
            wire.close([each.ring, each.counters])
        self._passed, self._spoken, self._unprobed = {}, set(), 0
        if why:
            self._state = dict.fromkeys(_TAPS, f"absent, because {why}")
            self._doors = f"not watched: {why}"
            self._alarm(Alarm(False, f"the taps saw nothing for a while: {why}", ""))

    # --- reading ---

    async def _run(self) -> None:
        """The rings have room for what comes between two looks: being woken for it would cost the relay more."""
        loop = asyncio.get_running_loop()
        ticked_at = 0.0
        while True:
            began_ns, seen, more = time.monotonic_ns(), False, True
            while more and self._reader is not None:
                turn_at, full = loop.time(), self._reader.fill() > _FULL
                try:
                    events, more = self._reader.read(time.monotonic_ns(), _IN_HASTE if full else self._pace.at_once)
                    self.adapter.events(events)
                except Exception as error:  # whatever was seen must not stop the gate
                    self._failed(error)
                    break
                seen = seen or bool(events)
                await asyncio.sleep(0 if full or not more else (loop.time() - turn_at) * self._pace.share)
            self._until_ns = min(began_ns, self._noted_ns())
            if loop.time() - ticked_at >= _TICK_S:
                ticked_at = loop.time()
                try:
                    self.adapter.tick()
                except Exception as error:
                    self._failed(error)
            await asyncio.sleep(self._pace.busy_s if seen else _IDLE_S)

    def _failed(self, error: Exception) -> None:
        """An error of ours in reading what was seen: nothing more is witnessed, and that is said."""
        self.problem = f"reading what the taps saw failed: {type(error).__name__}"
        self._leave(self.problem)

    # --- alarms ---

    def _alarm(self, alarm: Alarm) -> None:
        outcome = alarm.outcome
        if isinstance(outcome, Unsure) and outcome.why is Why.UNLINKED and outcome.unit is not None and outcome.unit.process is not None:
            pid = outcome.unit.process.pid
            if pid in self._unlinked:  # a server that asks somebody over TLS does so all day: counted, and told once for each process
                return
            if len(self._unlinked) < _KNOWN_NAMES:
                self._unlinked.add(pid)
        if self._tls and isinstance(outcome, Bypass) and outcome.why is Why.UNKNOWN_CONNECTION and outcome.unit.kind in (UnitKind.FIRST, UnitKind.OPAQUE):
            # The gate knows a client's connection once its handshake is done; of one that failed it hears nothing.
            self._handshakes += 1
            alarm = Alarm(False, "TLS was begun on the guarded port, and the gate has no finished handshake", alarm.where, outcome)
        self._record(alarm.entry())
