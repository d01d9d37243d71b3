"""The witness's own process: reads the rings, puts flows together and compares them with the gate's notes, beside the gate and not in its loop.

It has no rights at all: the rings came to it as descriptors, its root is empty, it has no network. It yields to the gate for processor time, and what
that costs shows: the rings fill, what is lost is counted, and times stand still until it has read what they are about.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import socket
from collections import deque
from collections.abc import Callable

from enforcer.helper import wire
from enforcer.watching import BESIDE, Watch
from enforcer.witness.client import TAPS
from enforcer.witness.language import MAX_BYTES, MOST_MESSAGE_BYTES, PIECE_BYTES, AlarmRaised, Witnessed
from enforcer.witness.notes import PACKET_BYTES, NoteReader
from escrow.evidence.entry import Bypassed

_TELL_S = 0.25
_AT_ONCE = 64
"""Packets in one turn of the loop."""
_MOST_WAITING_BYTES = 64 << 20
"""For the daemon to read. Past that, this process ends, which is an alarm of its own."""
_MOST_NOTE_BYTES = PACKET_BYTES + 1024
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class DaemonDoesNotRead(Exception):
    """What it is told piles up."""


def prepare(port: int, tls: bool, channel: socket.socket) -> Callable[[], int | None]:
    """As root: everything is imported by now. It has the lowest priority there is among those that are served at all."""
    os.nice(19)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # and interrupts nobody when it wakes (sched(7))
    return lambda: asyncio.run(_Process(port, tls, channel).run())


class _Process:
    def __init__(self, port: int, tls: bool, channel: socket.socket) -> None:
        self._channel = channel
        self._notes, self._noted_ns = NoteReader(), 0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._said: Witnessed | None = None
        self._ended = asyncio.Event()
        self._failed: Exception | None = None
        self._watch = Watch(port, tls, self._alarm, noted_ns=lambda: self._noted_ns, pace=BESIDE)

    async def run(self) -> int:
        """Until the daemon is gone."""
        loop = asyncio.get_running_loop()
        self._channel.setblocking(False)
        loop.add_reader(self._channel.fileno(), self._readable)
        while not self._ended.is_set():
            self._tell()
            try:
                async with asyncio.timeout(_TELL_S):
                    await self._ended.wait()
            except TimeoutError:
                continue
        await self._watch.close()
        if self._failed is not None:
            raise self._failed
        return 0

    # --- in ---

    def _readable(self) -> None:
        try:
            for _ in range(_AT_ONCE):
                packet = wire.receive(self._channel, _MOST_NOTE_BYTES)
                if packet is None:
                    return self._ended.set()
                self._take(*packet)
        except BlockingIOError:
            return
        except (wire.Malformed, ValueError) as error:
            self._fail(error)
        except OSError:  # it is gone
            self._ended.set()

    def _take(self, data: bytes, descriptors: list[int]) -> None:
        if data == TAPS and len(descriptors) == 1:
            return self._watch.join_taps(socket.socket(fileno=descriptors[0]))
        if descriptors:
            wire.close(descriptors)
            raise ValueError("descriptors that nobody asked for")
        note = self._watch.adapter.note
        for each in self._notes.read(data):
            if isinstance(each, int):
                self._noted_ns = each
            else:
                note(each)

    def _fail(self, error: Exception) -> None:
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._failed = error
        self._ended.set()

    # --- out ---

    def _alarm(self, found: Bypassed) -> None:
        message, what = found.message, found.what
        if len(message) > MOST_MESSAGE_BYTES:
            what, message = f"{what}; its {len(message)} bytes have the SHA-256 {hashlib.sha256(message).hexdigest()}", b""
        raised = AlarmRaised(
            certain=found.certain, what=_shown(what), where=_shown(found.where), bypassed=self._watch.bypassed, message_bytes=len(message)
        )  # fmt: skip
        self._send(raised.model_dump_json().encode())
        for at in range(0, len(message), PIECE_BYTES):
            self._send(message[at : at + PIECE_BYTES])

    def _tell(self) -> None:
        """What has changed for `status`."""
        now = Witnessed.model_validate_json(json.dumps(self._watch.status()))
        if now != self._said and not self._waiting:
            self._said = now
            self._send(now.model_dump_json().encode())

    def _send(self, packet: bytes) -> None:
        """In order, as soon as the daemon reads."""
        assert len(packet) <= MAX_BYTES
        self._waiting.append(packet)
        self._waiting_bytes += len(packet)
        if self._waiting_bytes > _MOST_WAITING_BYTES:
            return self._fail(DaemonDoesNotRead())
        self._drain()

    def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                self._channel.send(self._waiting[0])
                self._waiting_bytes -= len(self._waiting.popleft())
        except BlockingIOError:
            loop.add_writer(self._channel.fileno(), self._drain)
            return
        except OSError:  # it is gone, which its end of the channel says
            self._waiting.clear()
        loop.remove_writer(self._channel.fileno())


def _shown(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: f"\\u{{{ord(found[0]):x}}}", text)[:1024]
