"""HTTP/1.1 messages over asyncio streams: strict reading with llhttp, and writing.

Sources: RFC 9112 (framing: sections 6 and 7), RFC 9110 (hop-by-hop fields: section 7.6.1).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httptools

Headers = tuple[tuple[bytes, bytes], ...]
"""Names in lower case, in order."""

HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
        b"expect",
        b"proxy-authenticate",
    }
)
"""Fields of one hop: never forwarded; the framing fields are set anew."""


class BadMessage(Exception):
    """The peer's bytes are no HTTP/1.1 message that all parsers read alike, or pass a bound. status: what to tell a client."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class Closed(Exception):
    """The peer closed the connection in the middle of a message."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request's or a response's head. `method`, `target` of the one, `status` of the other."""

    headers: Headers
    keep_alive: bool
    method: str = ""
    target: str = ""
    status: int = 0

    def get(self, name: bytes) -> bytes | None:
        """The only value of a field. Raises BadMessage where it comes twice with different values."""
        values = {value for key, value in self.headers if key == name}
        if len(values) > 1:
            raise BadMessage("a header that must come once comes twice")
        return next(iter(values), None)


class _End:
    pass


END = _End()
_CHUNK = 65536


class Wire:
    """One direction of a connection, as a sequence of heads and body chunks. `pump` reads on in the background, within bounds."""

    def __init__(self, reader: asyncio.StreamReader, *, client: bool, max_head_bytes: int) -> None:
        self.reader = reader
        self._client, self._max_head = client, max_head_bytes
        self._parser: Any = httptools.HttpRequestParser(self) if client else httptools.HttpResponseParser(self)
        self._events: deque[Head | bytes | _End] = deque()
        self._headers: list[tuple[bytes, bytes]] = []
        self._url = b""
        self._head_size = 0
        self._unfinished = 0
        self._in_message = False
        self._sized = False
        self.gone = asyncio.Event()

    # --- callbacks of httptools ---

    def on_message_begin(self) -> None:
        self._headers, self._url, self._head_size, self._in_message = [], b"", 0, True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > self._max_head or len(self._headers) >= 200:
            raise BadMessage("the header section passes the bound", 431)
        if not name or b"\r" in value or b"\n" in value or b"\0" in value:
            raise BadMessage("a header field is malformed")
        self._headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        headers = tuple(self._headers)
        lengths = [value for name, value in headers if name == b"content-length"]
        codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
        if len(lengths) > 1 or (lengths and codings) or any(not value.isdigit() for value in lengths) or codings not in ([], [b"chunked"]):
            raise BadMessage("its length is ambiguous")
        self._sized = bool(lengths or codings)
        if self._client:
            if self._parser.get_http_version() not in ("1.1", "1.0"):
                raise BadMessage("only HTTP/1.1 is spoken here", 505)
            if sum(name == b"host" for name, _ in headers) > 1:
                raise BadMessage("it names two hosts")
            head = Head(headers, self._parser.should_keep_alive(), self._parser.get_method().decode("ascii"), self._url.decode("latin-1"))
        else:
            head = Head(headers, self._parser.should_keep_alive(), status=self._parser.get_status_code())
        self._head_size = 0
        self._events.append(head)

    def on_body(self, body: bytes) -> None:
        self._events.append(bytes(body))

    def on_message_complete(self) -> None:
        self._in_message = False
        self._events.append(END)

    # --- reading ---

    async def _fill(self) -> bool:
        """Read once and parse. False at the peer's end. Raises BadMessage, Closed."""
        data = await self.reader.read(_CHUNK)
        if not data:
            self.gone.set()
            return False
        self.feed(data)
        return True

    def feed(self, data: bytes) -> None:
        if not self._events and not self._in_message and self._client and (data[:1] == b"\x16" or data.startswith(b"PRI * HTTP/2")):
            what = "TLS" if data[:1] == b"\x16" else "HTTP/2"
            raise BadMessage(f"{what} is not spoken on this port: Holdfast needs plain HTTP/1.1" + (" or [tls] cert and key" if what == "TLS" else ""), 505)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise BadMessage("Upgrade and CONNECT are refused", 501) from None
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            raise cause if isinstance(cause, BadMessage) else BadMessage("it cannot be parsed") from None
        except httptools.HttpParserError:
            raise BadMessage("it is malformed HTTP") from None
        # The parser keeps an unfinished target, field, extension or trailer itself: what completes nothing is bounded here.
        self._unfinished = 0 if self._events else self._unfinished + len(data)
        if self._unfinished > 2 * self._max_head:
            raise BadMessage("the header section passes the bound", 431)

    async def head(self) -> Head | None:
        """The next message's head; None where the peer closed between messages."""
        while not self._events:
            if not await self._fill():
                if self._in_message:
                    raise Closed
                return None
        event = self._events.popleft()
        if not isinstance(event, Head):
            raise BadMessage("a body comes where a head should")
        return event

    async def chunk(self) -> bytes | None:
        """The next piece of the body; None at its end. Raises Closed where it is cut off."""
        while not self._events:
            if not await self._fill():
                if self._client or self._sized:
                    raise Closed
                return None  # a response without a length ends with its connection
        event = self._events.popleft()
        if isinstance(event, _End):
            return None
        if isinstance(event, Head):
            raise BadMessage("a head comes where a body should")
        return event

    async def body(self, most: int) -> bytes:
        """The whole body. Raises BadMessage past `most` bytes, before they are kept."""
        parts, size = [], 0
        while (part := await self.chunk()) is not None:
            size += len(part)
            if size > most:
                raise BadMessage("the body passes the bound", 413)
            parts.append(part)
        return b"".join(parts)

    async def watch(self) -> None:
        """Read on (pipelined requests, at most 64 KiB) until the peer is gone. Run beside an exchange, cancelled after it."""
        held = 0
        try:
            while held < _CHUNK:
                data = await self.reader.read(_CHUNK)
                if not data:
                    break
                held += len(data)
                self.feed(data)
            else:
                await asyncio.Event().wait()
        except (BadMessage, ConnectionError, OSError):
            pass
        self.gone.set()


def request_head(method: str, target: str, headers: Iterable[tuple[bytes, bytes]], length: int) -> bytes:
    """A request's head, with `Content-Length` where there may be a body."""
    lines = [f"{method} {target} HTTP/1.1".encode("latin-1")]
    lines += [name + b": " + value for name, value in headers if name not in HOP]
    if length or method in ("POST", "PUT", "PATCH"):
        lines.append(b"content-length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


_REASONS = {200: "OK", 202: "Accepted", 204: "No Content", 400: "Bad Request", 404: "Not Found", 413: "Content Too Large", 502: "Bad Gateway"}


def response_head(status: int, headers: Iterable[tuple[bytes, bytes]], *, length: int | None, keep_alive: bool) -> bytes:
    """A response's head. length: None for a chunked body."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}".encode()]
    lines += [name + b": " + value for name, value in headers if name not in HOP]
    if length is None:
        lines.append(b"transfer-encoding: chunked")
    elif status != 204 and status != 304 and status >= 200:
        lines.append(b"content-length: %d" % length)
    lines.append(b"connection: keep-alive" if keep_alive else b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"
