"""HTTP framing: one reading, whole or split at every point, within bounds, or none."""

from __future__ import annotations

import pytest

from enforcer.relay.head import request_head, response_head
from escrow.http.head import BadMessage, Head
from escrow.http.wire import Closed, Heads, Wire

MAX = 4096
REQUESTS = (
    b"POST /mcp HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 5\r\nX-One:  two \r\n\r\nhello"
    b"POST /mcp HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
)


def everything(wire: Wire) -> list[tuple[Head, bytes]]:
    """What was read: heads with whole bodies. Raises Closed where the last is cut off."""
    found: list[tuple[Head, bytes]] = []
    head: Head | None = None
    body = b""
    for event in wire.events:
        if isinstance(event, Head):
            assert head is None
            head, body = event, b""
        elif isinstance(event, bytes):
            body += event
        else:
            assert head is not None
            found.append((head, body))
            head = None
    assert head is None
    return found


def read(*pieces: bytes, client: bool = True, heads: Heads | None = None) -> list[tuple[Head, bytes]]:
    wire = Wire(heads or Heads(), client=client, max_head_bytes=MAX)
    for piece in pieces:
        wire.feed(piece)
    wire.eof()
    return everything(wire)


def shown(messages: list[tuple[Head, bytes]]) -> list[tuple[object, ...]]:
    return [(head.method, head.target, head.status, head.keep_alive, head.headers, body) for head, body in messages]


def test_requests_are_read_alike_split_at_every_point() -> None:
    whole = read(REQUESTS)
    assert [(head.method, body) for head, body in whole] == [("POST", b"hello"), ("POST", b"abcde"), ("GET", b"")]
    assert whole[0][0].headers == ((b"host", b"a"), (b"content-length", b"5"), (b"x-one", b"two"))
    heads = Heads()
    for cut in range(1, len(REQUESTS)):
        for known in (Heads(), heads):
            assert shown(read(REQUESTS[:cut], REQUESTS[cut:], heads=known)) == shown(whole), cut
    assert shown(read(*(REQUESTS[at : at + 1] for at in range(len(REQUESTS))))) == shown(whole)


def test_responses_are_read_alike_split_at_every_point() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    whole = read(raw, client=False)
    assert [body for _, body in whole] == [b"hi", b"x"]
    for cut in range(1, len(raw)):
        assert shown(read(raw[:cut], raw[cut:], client=False)) == shown(whole), cut


def test_a_response_without_a_length_ends_with_its_connection() -> None:
    assert [body for _, body in read(b"HTTP/1.1 200 OK\r\n\r\nabc", b"def", client=False)] == [b"abcdef"]


@pytest.mark.parametrize(
    "raw",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"HTTP/1.1 2"],
)
def test_a_response_that_is_cut_off_is_never_taken_for_whole(raw: bytes) -> None:
    with pytest.raises(Closed):
        read(raw, client=False)


H = b"POST / HTTP/1.1\r\nHost: a\r\n"
AMBIGUOUS = {
    "both lengths": H + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both, the other way": H + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": H + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": H + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": H + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": H + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": H + b"Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": H + b"Content-Length: 0x3\r\n\r\nabc",
    "no length": H + b"Content-Length: \r\n\r\nabc",
    "a length past 64 bits": H + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "identity": H + b"Transfer-Encoding: identity\r\n\r\n",
    "xchunked": H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": H + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip, chunked": H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two codings": H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a quoted coding": H + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "obs-fold": H + b"X: y\r\n Content-Length: 3\r\n\r\nabc",
    "a folded coding": H + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"POST / HTTP/1.1\nHost: a\n\n",
    "a bare LF in a header": H + b"X: y\nContent-Length: 3\r\n\r\nabc",
    "a bare CR in a header": H + b"X: y\rContent-Length: 3\r\n\r\nabc",
    "a space before the colon": H + b"Content-Length : 3\r\n\r\nabc",
    "a tab before the colon": H + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "a space before the name": b"POST / HTTP/1.1\r\n Host: a\r\n\r\n",
    "NUL in a value": H + b"X: a\0b\r\n\r\n",
    "NUL in a name": H + b"X\0: a\r\n\r\n",
    "no name": H + b": a\r\n\r\n",
    "two hosts": H + b"Host: b\r\n\r\n",
    "a chunk that is longer than it says": H + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a bare LF": H + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "a chunk size past 64 bits": H + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc",
    "a signed chunk size": H + b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with 0x": H + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0 in words": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    "nothing like HTTP": b"\0\1\2\3\r\n\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_two_parsers_could_read_apart_is_refused(name: str) -> None:
    raw = AMBIGUOUS[name]
    for pieces in ((raw,), (raw[:10], raw[10:]), tuple(raw[at : at + 1] for at in range(len(raw)))):
        with pytest.raises((BadMessage, Closed)):
            read(*pieces)


RESPONSE = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"Transfer-Encoding: gzip\r\n\r\nabc",
        b"Transfer-Encoding: identity\r\n\r\nabc",
        b"X: a\n\r\n",
        b"X : a\r\n\r\n",
        b"X: a\r\n b\r\n\r\n",
        b"X: \0\r\n\r\n",
    ],
)
def test_the_servers_framing_is_held_to_the_same(head: bytes) -> None:
    with pytest.raises((BadMessage, Closed)):
        read(RESPONSE + head, client=False)


def test_a_switch_of_protocols_by_the_server_is_refused() -> None:
    with pytest.raises(BadMessage):
        read(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", client=False)


BEFORE = {
    "first": b"",
    "after a body with a length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    "after a chunked body": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
}
ENDLESS = {
    "a header value": H + b"X: ",
    "a header name": H,
    "a target": b"GET /",
    "a chunk extension": H + b"Transfer-Encoding: chunked\r\n\r\n1;",
    "a trailer": H + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("what", ENDLESS)
def test_what_never_ends_is_refused_within_the_bound(what: str, before: str) -> None:
    wire = Wire(Heads(), client=True, max_head_bytes=MAX)
    wire.feed(BEFORE[before])
    wire.feed(ENDLESS[what])
    with pytest.raises(BadMessage):
        for _ in range(8):
            wire.events.clear()
            wire.feed(b"a" * 1024)


def test_line_ends_before_a_request_are_refused_within_the_bound() -> None:
    wire = Wire(Heads(), client=True, max_head_bytes=MAX)
    with pytest.raises(BadMessage):
        for _ in range(16):
            wire.feed(b"\r\n" * 512)


@pytest.mark.parametrize("count", [300, 5000])
def test_too_many_header_fields_are_refused(count: int) -> None:
    with pytest.raises(BadMessage):
        read(H + b"".join(b"X: y\r\n" for _ in range(count)) + b"\r\n")


def test_a_field_that_comes_twice_with_two_values_has_no_value() -> None:
    [(head, _)] = read(H + b"Mcp-Method: a\r\nMcp-Method: b\r\nX: y\r\nX: y\r\n\r\n")
    assert head.get(b"x") == b"y" and head.get(b"none") is None
    with pytest.raises(BadMessage):
        head.get(b"mcp-method")


def test_heads_are_written_without_the_fields_of_one_hop() -> None:
    fields = ((b"host", b"a"), (b"connection", b"x-secret"), (b"transfer-encoding", b"chunked"), (b"content-length", b"99"), (b"upgrade", b"h2c"))
    assert request_head("POST", "/", fields, 3) == b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n"
    assert response_head(200, fields, length=3, keep_alive=True) == b"HTTP/1.1 200 OK\r\nhost: a\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\n"
    assert response_head(200, (), length=None, keep_alive=False) == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
