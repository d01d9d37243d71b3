"""One direction of an HTTP/1.1 connection, bytes in, heads and bodies out: strict reading with llhttp. Pure.

Heads repeat: a client sends the same one with each call. What llhttp read once, whole and from the start of a message, is remembered by its
very bytes, and a body with a `Content-Length` is counted; everything else goes through llhttp.
Sources: RFC 9112 (framing: sections 6 and 7).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import httptools

from escrow.http.head import BadMessage, Head

_MOST_FIELDS = 200
_MOST_KNOWN = 1024
_MOST_KNOWN_BYTES = 4096


class Closed(Exception):
    """The peer closed the connection in the middle of a message."""


class End:
    """The end of a message."""


END = End()


@dataclass(frozen=True, slots=True)
class Known:
    """A head read before. length: of the body that follows."""

    head: Head
    length: int


class Heads:
    """Heads read before, by their bytes. One for each direction: the same bytes are read otherwise in the other."""

    def __init__(self) -> None:
        self._known: dict[bytes, Known] = {}
        self.get = self._known.get

    def learn(self, raw: bytes, known: Known) -> None:
        if len(raw) > _MOST_KNOWN_BYTES:
            return
        if len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[raw] = known


class Wire:
    """Feed bytes in any segmentation; take `events`: a head, the pieces of its body, END, the next head. client: whether requests are read."""

    __slots__ = (
        "_client",
        "_head_size",
        "_headed",
        "_headers",
        "_heads",
        "_in_message",
        "_left",
        "_length",
        "_max_head",
        "_parser",
        "_sized",
        "_unfinished",
        "_url",
        "events",
    )

    def __init__(self, heads: Heads, *, client: bool, max_head_bytes: int) -> None:
        self.events: deque[Head | bytes | End] = deque()
        self._heads, self._client, self._max_head = heads, client, max_head_bytes
        self._parser: Any = None
        self._left = 0
        """Bytes still to come of a body that is counted here."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._url = b""
        self._head_size = 0
        self._unfinished = 0
        self._in_message = False
        self._headed = self._sized = False
        self._length: int | None = None

    @property
    def between(self) -> bool:
        """Whether nothing of a further message was read."""
        return not self._left and not self._in_message and not self.events

    def whole(self, data: bytes) -> tuple[Head, bytes] | None:
        """The message that the data is, no more and no less, where its head was read before; None otherwise, and then nothing was taken."""
        if self._parser is not None or self._left or self.events:
            return None
        end = data.find(b"\r\n\r\n") + 4
        known = self._heads.get(data[:end])
        if known is None or len(data) - end != known.length:
            return None
        self._unfinished = 0
        return known.head, data[end:]

    def feed(self, data: bytes) -> None:
        """Read on. Raises BadMessage; what was read before stands in `events`."""
        while data:
            if self._left:
                piece = data[: self._left]
                data = data[self._left :]
                self._left -= len(piece)
                self.events.append(piece)
                if not self._left:
                    self.events.append(END)
            elif self._parser is None and (end := data.find(b"\r\n\r\n") + 4) > 3:
                raw, data = data[:end], data[end:]
                known = self._heads.get(raw)
                if known is None:
                    self._learn(raw)
                    continue
                self._unfinished = 0
                self.events.append(known.head)
                self._left = known.length
                if not known.length:
                    self.events.append(END)
            else:
                self._parse(data)
                return

    def eof(self) -> None:
        """The peer sent its last byte. Raises Closed where that cuts a message off."""
        if self._left or (self._in_message and (self._client or self._sized or not self._headed)):
            raise Closed
        if self._in_message:  # a response without a length ends with its connection
            self._in_message = False
            self.events.append(END)

    def _learn(self, raw: bytes) -> None:
        """Read a whole head, from its message's start; remember it where what follows is certain from it alone."""
        before = len(self.events)
        self._parse(raw)
        new = len(self.events) - before
        if new == 0 or not isinstance(head := self.events[before], Head):
            return
        if new == 1 and self._in_message and self._length is not None:
            self._parser, self._in_message, self._left = None, False, self._length
            self._heads.learn(raw, Known(head, self._length))
        elif new == 2 and not self._in_message:
            self._heads.learn(raw, Known(head, 0))

    def _parse(self, data: bytes) -> None:
        if self._parser is None:
            if self._client and (data[:1] == b"\x16" or data.startswith(b"PRI * HTTP/2")):
                what = "TLS" if data[:1] == b"\x16" else "HTTP/2"
                instead = " or [tls] cert and key" if what == "TLS" else ""
                raise BadMessage(f"{what} is not spoken on this port: Holdfast needs plain HTTP/1.1{instead}", 505)
            self._parser = httptools.HttpRequestParser(self) if self._client else httptools.HttpResponseParser(self)
        before = len(self.events)
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
        self._unfinished = 0 if len(self.events) > before else self._unfinished + len(data)
        if self._unfinished > 2 * self._max_head:
            raise BadMessage("the header section passes the bound", 431)
        if not self._in_message:
            self._parser = None  # the next message may begin with a head that is known

    # --- callbacks of httptools ---

    def on_message_begin(self) -> None:
        self._headers, self._url, self._head_size, self._length = [], b"", 0, None
        self._in_message, self._headed, self._sized = True, False, False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > self._max_head or len(self._headers) >= _MOST_FIELDS:
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
        self._length = int(lengths[0]) if lengths else None
        if self._client:
            if self._parser.get_http_version() not in ("1.1", "1.0"):
                raise BadMessage("only HTTP/1.1 is spoken here", 505)
            if sum(name == b"host" for name, _ in headers) > 1:
                raise BadMessage("it names two hosts")
            head = Head(headers, self._parser.should_keep_alive(), self._parser.get_method().decode("ascii"), self._url.decode("latin-1"))
        else:
            head = Head(headers, self._parser.should_keep_alive(), status=self._parser.get_status_code())
        self._headed, self._head_size, self._headers = True, 0, []
        self.events.append(head)

    def on_body(self, body: bytes) -> None:
        self.events.append(bytes(body))

    def on_message_complete(self) -> None:
        self._in_message = False
        self.events.append(END)
