"""Second readings to hold our own parsers against: written from the standards, slow, and sharing no code with what they check."""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as another HTTP parser reads it."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def requests(raw: bytes) -> list[Asked] | None:
    """What h11 reads as a server; None where it refuses."""
    connection = h11.Connection(h11.SERVER)
    found: list[Asked] = []
    try:
        connection.receive_data(raw)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return found if not connection.trailing_data[0] else None
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append(Asked(head.method, head.target, tuple(head.headers), body))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return found
                connection.start_next_cycle()
            else:
                return found
    except h11.ProtocolError:
        return None


@dataclass(frozen=True, slots=True)
class Dispatched:
    """An event as a browser dispatches it; WHATWG HTML, 9.2.6."""

    type: str
    data: str


def events(raw: bytes) -> list[Dispatched]:
    """Every event that a client would see in the stream; what its end cuts off is not dispatched."""
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    found: list[Dispatched] = []
    name, data = "", ""
    *lines, _unfinished = re.split("\r\n|\n|\r", text)
    for line in lines:
        if line == "":
            if data != "":
                found.append(Dispatched(name or "message", data.removesuffix("\n")))
            name, data = "", ""
            continue
        if line.startswith(":"):
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data += value + "\n"
    return found
