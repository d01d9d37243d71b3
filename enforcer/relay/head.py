"""Heads of HTTP/1.1 messages: the writing of new ones.

A head never goes on as it came but is written anew from what was parsed, so that the two sides cannot disagree on where a message ends.
Sources: RFC 9112 (framing: sections 6 and 7), RFC 9110 (hop-by-hop fields: section 7.6.1).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from escrow.http.head import BadMessage, Head, Headers

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
_ENCODED = re.compile(r"=\?base64\?(.*)\?=")
"""A name that no header can carry as it is (MCP 2026-07-28, "Streamable HTTP", `Mcp-Name`)."""
_UTF8 = re.compile(rb'[^;]*;[ \t]*charset="?utf-?8"?[ \t]*', re.IGNORECASE)
_VISIBLE = re.compile(rb"[\x21-\x5b\x5d-\x7e]+")
"""No blanks, controls or backslashes, which readers of addresses drop, or take for a slash."""
_ADDRESS = re.compile(rb"(https?)://([^/?#]+)[^#]*", re.IGNORECASE)


def asked(head: Head) -> Headers:
    """A request's fields that go on to the server."""
    return tuple((name, _as_judged(name, value)) for name, value in head.headers if name not in _NOT_ASKED)


def told(head: Head) -> Headers:
    """A response's fields that go on to the client: all but those of framing and encoding."""
    return tuple((name, _as_judged(name, value)) for name, value in head.headers if name not in _NOT_TOLD)


def _as_judged(name: bytes, value: bytes) -> bytes:
    """A content type without a charset that is not UTF-8: bodies are judged as UTF-8, and UTF-7 makes another text of the same bytes."""
    foreign = name == b"content-type" and b"charset" in value.lower() and _UTF8.fullmatch(value) is None
    return value.partition(b";")[0] if foreign else value


def check_redirect(head: Head, request: Head, tls: bool) -> None:
    """Where the server sends the client, if it does: only to where the client is, since what is said elsewhere nobody judges. Raises BadMessage."""
    location = head.get(b"location") if 300 <= head.status < 400 else None
    if location is None:
        return
    if _VISIBLE.fullmatch(location):
        if location.startswith(b"/") and not location.startswith(b"//"):
            return
        address, host = _ADDRESS.fullmatch(location), request.get(b"host")
        # Without a port in the address, another scheme is another port.
        if address and host and address[2] == host and (b":" in host.rpartition(b"]")[2] or (address[1].lower() == b"https") == tls):
            return
    raise BadMessage("it sends the client to another address, where nothing is judged")


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
def ordinary(head: Head) -> bool:
    """Whether a request's head asks for nothing but an answer to its body. Raises BadMessage where it asks for another protocol."""
    if head.method == "CONNECT" or head.get(b"upgrade") is not None:
        raise BadMessage("Upgrade and CONNECT are refused", 501)
    return (head.get(b"expect") or b"").lower() != b"100-continue"


@lru_cache(maxsize=1024)
def named(head: Head) -> tuple[str | None, bool, str | None]:
    """The method that a request's head repeats; whether it repeats a name; and the name, None where its encoding is broken. Raises BadMessage."""
    method, name = head.get(b"mcp-method"), head.get(b"mcp-name")
    return None if method is None else method.decode("latin-1"), name is not None, None if name is None else _decoded(name)


def _decoded(name: bytes) -> str | None:
    text = name.decode("latin-1")
    encoded = _ENCODED.fullmatch(text)
    if encoded is None:
        return text
    try:
        return base64.b64decode(encoded[1], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


@lru_cache(maxsize=1024)
def carries(head: Head) -> Literal["body", "events", "redirect"]:
    """What a response's head leads to. Raises BadMessage where that is not readable as it is."""
    if head.get(b"content-encoding") not in (None, b"identity"):
        raise BadMessage("it is compressed, though that was not asked for")
    if 300 <= head.status < 400:
        return "redirect"
    kind = (head.get(b"content-type") or b"").split(b";")[0].strip().lower()
    return "events" if kind == b"text/event-stream" and head.status == 200 else "body"


@lru_cache(maxsize=1024)
def forwarded(head: Head, length: int) -> bytes:
    """A client's request's head as the server gets it. Remembered: a connection's heads repeat, and `Wire` gives equal ones as one object."""
    return request_head(head.method, head.target, asked(head), length)


@lru_cache(maxsize=1024)
def relayed(head: Head, length: int | None, keep_alive: bool) -> bytes:
    """A server's response's head as the client gets it; remembered like `forwarded`."""
    return response_head(head.status, told(head), length=length, keep_alive=keep_alive)
