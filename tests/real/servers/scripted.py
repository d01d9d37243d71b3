"""A server that says exactly the bytes it is told, in exactly the segments it is told: for what no SDK would ever send."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived. body: None where it is no JSON object."""

    head: bytes
    raw_body: bytes
    body: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes sent in one send(), after `after_s` seconds."""

    data: bytes
    after_s: float = 0.0


Script = Callable[[Asked], Iterable[Segment] | None]
"""What to send for a request; None ends the connection, and so does an OSError raised on the way."""


def json_answer(body: bytes, headers: bytes = b"") -> bytes:
    """An HTTP 200 with a JSON body."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), headers, body)


SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk (RFC 9112 section 7.1); the empty one is the last."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class Scripted:
    """Listens on `port`; `asked` is everything that arrived."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.asked: list[Asked] = []

    def serve(self) -> None:
        """Accept until closed."""
        while not self._closing.is_set():
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(peer)
            thread = threading.Thread(target=self._talk, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End everything, and return once the threads are gone."""
        self._closing.set()
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def _talk(self, peer: socket.socket) -> None:
        buffer = b""
        with peer, suppress(OSError):
            while True:
                while b"\r\n\r\n" not in buffer:
                    got = peer.recv(65536)
                    if not got:
                        return
                    buffer += got
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                length = _LENGTH.search(head)
                want = int(length[1]) if length else 0
                while len(buffer) < want:
                    buffer += peer.recv(65536)
                raw, buffer = buffer[:want], buffer[want:]
                try:
                    body = json.loads(raw)
                except ValueError:
                    body = None
                asked = Asked(head, raw, body if isinstance(body, dict) else None)
                self.asked.append(asked)
                segments = self._script(asked)
                if segments is None:
                    peer.close()
                    return
                for segment in segments:
                    if segment.after_s and self._closing.wait(segment.after_s):
                        return
                    peer.sendall(segment.data)


@contextmanager
def scripted(script: Script) -> Iterator[Scripted]:
    """Run one for the block."""
    server = Scripted(script)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(timeout=5)
