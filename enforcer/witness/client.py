"""The daemon's end of the witness's process: notes out, in a packet for some milliseconds; alarms and what `status` shows in.

It is never waited for. A process that ends, says what it may not, or reads so slowly that notes would be lost is given up; that nobody looked for a
while is an alarm, and the next one begins with the connections that are open. The taps' socket goes straight on to it, so that with it the taps
begin anew.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from enforcer.helper import wire
from enforcer.witness.language import MAX_BYTES, TOLD, AlarmRaised, Witnessed
from enforcer.witness.notes import NoteWriter
from escrow.evidence.entry import Bypassed
from escrow.flows.notes import Note

TAPS = b"T"
"""The packet that a socket of the taps' comes with."""

_BUSY_S = 0.01
_IDLE_S = 0.1
"""How long a note waits for others: some fraction of what the witness waits for notes."""
_AT_ONCE = 32
"""Packets in one turn of the loop."""
_MOST_A_MINUTE = 10_000
"""Packets of an honest process: a hundred alarms with their messages, and what `status` shows, four times a second."""
_MINUTE_S = 60.0
_NOW = frozenset({"flows", "doors_open"})
"""Counters that count what is there, not what has been."""

_NOTHING = Witnessed(
    taps={"tap": "absent, because it is not attached yet", "tls": "absent, because it is not attached yet"},
    problem="",
    counters={"doors_used": 0},
    records={},
    doors="not looked at yet",
    open_doors=(),
    doors_left_out=0,
    tls_files_probed=0,
    not_covered=(),
    bypassed=False,
)


class WitnessClient:
    """Built in the running loop. record: for each alarm. None of it may raise."""

    def __init__(self, record: Callable[[Bypassed], None]) -> None:
        self._record = record
        self._notes = NoteWriter()
        self.note: Callable[[Note], None] = self._notes.note
        """The relay's, for each note, before the bytes are written."""
        self._socket: socket.socket | None = None
        self._reset = False
        self._taps: socket.socket | None = None
        self._seen = _NOTHING
        self._earlier: Counter[str] = Counter()
        self._bypassed = False
        self._alarm: tuple[AlarmRaised, bytearray] | None = None
        self._packets, self._minute_at = 0, 0.0
        self._timer = asyncio.get_running_loop().call_later(_IDLE_S, self._on_time)

    def join(self, process: socket.socket) -> None:
        """A process of the witness's has come; its socket."""
        self._leave("another took its place" if self._socket is not None else "")
        process.setblocking(False)
        self._socket, self._reset = process, False
        self._notes.begin()
        asyncio.get_running_loop().add_reader(process.fileno(), self._readable, process)
        self._send()

    def join_taps(self, taps: socket.socket) -> None:
        """A process of the taps' has come; its socket."""
        if self._taps is not None:
            self._taps.close()
        self._taps = taps
        self._send()

    def close(self) -> None:
        self._timer.cancel()
        self._leave("")
        if self._taps is not None:
            self._taps.close()
            self._taps = None

    def status(self) -> dict[str, Any]:
        """As `Watch.status`; counted over all processes of the witness's."""
        found = self._seen.model_dump(exclude={"type"})
        found["counters"] = {name: found["counters"].get(name, 0) + self._earlier[name] for name in {**self._earlier, **found["counters"]}}
        return found | {"bypassed": self._bypassed}

    # --- out ---

    def _on_time(self) -> None:
        noted = self._notes.noted
        self._send()
        self._timer = asyncio.get_running_loop().call_later(_BUSY_S if noted else _IDLE_S, self._on_time)

    def _send(self) -> None:
        if self._socket is None:
            return
        if self._notes.behind:
            return self._leave("it does not keep up with the gate")
        try:
            self._drain(self._socket)
            self._notes.until(time.monotonic_ns())
            self._drain(self._socket)
            if self._taps is not None:
                socket.send_fds(self._socket, [TAPS], [self._taps.fileno()])
                self._taps.close()
                self._taps = None
        except BlockingIOError:  # at the next time
            return
        except OSError:  # it ended; what it had said by then is still to be read
            self._notes.stop()

    def _drain(self, process: socket.socket) -> None:
        packets = self._notes.packets
        while packets:
            process.send(packets[0])
            packets.popleft()

    # --- in ---

    def _readable(self, process: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            if process is not self._socket:
                return
            try:
                packet = wire.receive(process, MAX_BYTES)
            except BlockingIOError:
                return
            except wire.Malformed:
                return self._leave("its packets cannot be read")
            except OSError:  # told once, before what is left to read: it ended with notes unread (unix(7), ECONNRESET)
                if self._reset:
                    return self._leave("its process ended")
                self._reset = True
                continue
            if packet is None:
                return self._leave("its process ended")
            data, descriptors = packet
            wire.close(descriptors)
            if descriptors or not self._taken(data):
                return self._leave("its packets cannot be read")

    def _taken(self, data: bytes) -> bool:
        """Whether it is what it may say."""
        now = time.monotonic()
        if now - self._minute_at > _MINUTE_S:
            self._packets, self._minute_at = 0, now
        self._packets += 1
        if self._packets > _MOST_A_MINUTE:
            return False
        if self._alarm is not None:
            alarm, message = self._alarm
            message += data
            if len(message) > alarm.message_bytes:
                return False
            if len(message) == alarm.message_bytes:
                self._alarm = None
                self._raise(alarm, bytes(message))
            return True
        try:
            told = TOLD.validate_json(data)
        except ValidationError:
            return False
        match told:
            case AlarmRaised():
                self._bypassed = self._bypassed or told.bypassed
                if told.message_bytes:
                    self._alarm = (told, bytearray())
                else:
                    self._raise(told, b"")
            case Witnessed():
                self._bypassed = self._bypassed or told.bypassed
                self._seen = told
        return True

    def _raise(self, alarm: AlarmRaised, message: bytes) -> None:
        self._record(Bypassed(alarm.certain, alarm.what, alarm.where, message))

    def _leave(self, why: str) -> None:
        """It is gone, in order where `why` is empty; another may come."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self._notes.stop()
        if not why:
            return
        cut, self._alarm = self._alarm, None
        if cut is not None:
            self._raise(cut[0], b"")
        gone = f"absent, because the witness is gone: {why}"
        self._earlier.update({name: count for name, count in self._seen.counters.items() if name not in _NOW})
        self._seen = _NOTHING.model_copy(update={"taps": {"tap": gone, "tls": gone}, "doors": f"not watched: the witness is gone: {why}"})
        self._record(Bypassed(False, f"the witness saw nothing for a while: {why}", ""))
