"""Heads of HTTP/1.1 messages: the writing of new ones.

A head never goes on as it came but is written anew from what was parsed, so that the two sides cannot disagree on where a message ends.
Sources: RFC 9112 (framing: sections 6 and 7), RFC 9110 (hop-by-hop fields: section 7.6.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from escrow.http.head import Head, Headers

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

_NOT_ASKED = frozenset({b"accept-encoding", b"range", b"if-none-match", b"if-modified-since", b"x-holdfast-test"})
"""Bodies must stay readable: no compression, no ranges, no conditional answers."""
_NOT_TOLD = frozenset({b"content-encoding", b"alt-svc"})
"""Of a response: its body is readable as it is, and there is no other service to switch to."""


def asked(head: Head) -> Headers:
    """A request's fields that go on to the server."""
    return tuple((name, value) for name, value in head.headers if name not in _NOT_ASKED)


def told(head: Head) -> Headers:
    """A response's fields that go on to the client: all but those of framing and encoding."""
    return tuple((name, value) for name, value in head.headers if name not in _NOT_TOLD)


def request_head(method: str, target: str, headers: Iterable[tuple[bytes, bytes]], length: int) -> bytes:
    """A request's head, with `Content-Length` where there may be a body."""
    lines = [f"{method} {target} HTTP/1.1".encode("latin-1")]
    lines += [name + b": " + value for name, value in headers if name not in HOP]
    if length or method in ("POST", "PUT", "PATCH"):
        lines.append(b"content-length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


_REASONS = {
    200: "OK",
    202: "Accepted",
    204: "No Content",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    413: "Content Too Large",
    502: "Bad Gateway",
}


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


@lru_cache(maxsize=1024)
def forwarded(head: Head, length: int) -> bytes:
    """A client's request's head as the server gets it. Remembered: a connection's heads repeat, and `Wire` gives equal ones as one object."""
    return request_head(head.method, head.target, asked(head), length)


@lru_cache(maxsize=1024)
def relayed(head: Head, length: int | None, keep_alive: bool) -> bytes:
    """A server's response's head as the client gets it; remembered like `forwarded`."""
    return response_head(head.status, told(head), length=length, keep_alive=keep_alive)
