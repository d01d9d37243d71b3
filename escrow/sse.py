"""Server-sent events: an incremental reader and a writer.

Pure. What the reader yields is re-written canonically by `encode`, so that comments, odd line ends and split fields carry nothing past
the judges. Source: WHATWG HTML, 9.2.5 "Parsing an event stream" and 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

import re
from dataclasses import dataclass


class EventTooLarge(ValueError):
    """An event, or a line of one, passed the bound."""


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event.

    name: the event type ("message" where the stream names none).
    data: its data lines joined by newlines, undecoded.
    id: the last event id that this event itself set, None where it set none.
    retry_ms: the reconnection time it set, in milliseconds.
    """

    name: str
    data: bytes
    id: str | None = None
    retry_ms: int | None = None


_LINE = re.compile(rb"\r\n|\n|\r")
_ID = re.compile(rb"[\x20-\x7e]*")
"""Event ids that are kept: a client gives them back in a header field, and nothing else is judged in them."""
_ENDS_OF_OTHERS = {b"\xc2\x85": rb"\u0085", b"\xe2\x80\xa8": rb"\u2028", b"\xe2\x80\xa9": rb"\u2029"}
"""What Python's `splitlines` takes for the end of a line, as clients do that read streams with it (httpx-sse to 0.4.0), and how JSON may write it."""


class Reader:
    """Feed bytes in any segmentation; get whole events. An event that the stream ends in the middle of is never dispatched."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self._buffer = bytearray()
        self._started = False
        self._searched = 0
        self._after_cr = False
        """Whether the line before ended with a CR, the last byte there was: a LF that follows belongs to it."""
        self._clear()

    def _clear(self) -> None:
        self._name = ""
        self._id: str | None = None
        self._retry: int | None = None
        self._data = bytearray()  # not a list: empty lines cost eight bytes each there
        self._lines = 0
        self._seen = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Take bytes, give the events that they complete.

        Raises:
            EventTooLarge: more than `max_event_bytes` without an event's end.
        """
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        self._buffer += chunk
        if not self._started:
            if len(self._buffer) < 3 and b"\xef\xbb\xbf".startswith(bytes(self._buffer)):
                return []
            if self._buffer.startswith(b"\xef\xbb\xbf"):
                del self._buffer[:3]
            self._started = True
        events: list[Event] = []
        at = 0
        while (found := _LINE.search(self._buffer, max(at, self._searched))) is not None:
            # Not left until the next byte shows whether a LF follows: after a stream's last event none comes, and after another one late.
            self._after_cr = found.group() == b"\r" and found.end() == len(self._buffer)
            line = bytes(self._buffer[at : found.start()])
            at = found.end()
            if line:
                self._field(line)
            elif self._seen:
                events.append(Event(self._name or "message", bytes(self._data), self._id, self._retry))
                self._clear()
        del self._buffer[:at]
        self._searched = len(self._buffer)  # a line of many chunks is searched once
        if len(self._buffer) + len(self._data) > self._max:
            raise EventTooLarge("an event passes the bound")
        return events

    def _field(self, line: bytes) -> None:
        if line.startswith(b":"):
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._seen = True
            if len(self._data) + len(value) + 1 > self._max:
                raise EventTooLarge("an event passes the bound")
            if self._lines:
                self._data += b"\n"
            self._data += value
            self._lines += 1
        elif name == b"event":
            self._name = value[:64].decode("utf-8", "replace")
            self._seen = True
        elif name == b"id" and _ID.fullmatch(value):
            self._id = value[:1024].decode("ascii")
            self._seen = True
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self._retry = int(value)
            self._seen = True


PING = b": ping\r\n\r\n"
"""A comment that keeps a waiting client's stream alive."""


def encode(event: Event) -> bytes:
    """Write one event. Its name and id must hold no line ends (the reader's never do). Its data is JSON, or visible ASCII."""
    data = event.data
    for end, escaped in _ENDS_OF_OTHERS.items():
        data = data.replace(end, escaped)
    lines = [] if event.name == "message" and not event.data else [f"event: {event.name}".encode()]
    if event.id is not None:
        lines.append(f"id: {event.id}".encode())
    if event.retry_ms is not None:
        lines.append(f"retry: {event.retry_ms}".encode())
    lines += [b"data: " + line for line in _LINE.split(data)]
    return b"\r\n".join(lines) + b"\r\n\r\n"
