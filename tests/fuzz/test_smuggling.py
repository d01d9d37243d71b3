"""Request smuggling against the real gate with real servers behind it: what the server sees is what was judged, no more, no less, byte for byte."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fuzz.behind import SERVERS, Behind, behind
from tests.fuzz.corpus import SEEDS, WORDS
from tests.real.conftest import FULL
from tests.real.server import NODE

BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{}}}'
HIDDEN = b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"smuggled","arguments":{}}}'
SECOND = b"POST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def post(*fields: bytes, body: bytes = BODY, line: bytes = b"POST /mcp HTTP/1.1", end: bytes = b"\r\n") -> bytes:
    return end.join([line, b"Host: a", b"Content-Type: application/json", *fields, b"", b""]) + body


LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked"
EMPTY_THEN_SECOND = b"0\r\n\r\n" + SECOND
REFUSED = {
    "CL.TE": post(b"Content-Length: %d" % len(EMPTY_THEN_SECOND), CHUNKED, body=EMPTY_THEN_SECOND),
    "TE.CL": post(CHUNKED, b"Content-Length: 4", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SECOND), SECOND)),
    "two lengths": post(LENGTH, b"Content-Length: 0", body=BODY + SECOND),
    "the same length twice": post(LENGTH, LENGTH),
    "a list of lengths": post(b"Content-Length: %d, %d" % (len(BODY), len(BODY))),
    "a length with a sign": post(b"Content-Length: +%d" % len(BODY)),
    "a negative length": post(b"Content-Length: -1"),
    "a length in hex": post(b"Content-Length: 0x10"),
    "a length with an underscore": post(b"Content-Length: 8_3"),
    "a length past 64 bits": post(b"Content-Length: 18446744073709551616"),
    "a length of 1 GiB": post(b"Content-Length: 1073741824", body=b"x" * 100_000),
    "a length in other digits": post("Content-Length: ٨٣".encode()),
    "no length value": post(b"Content-Length:"),
    "chunked twice": post(CHUNKED, CHUNKED, body=CHUNKS),
    "chunked, chunked": post(b"Transfer-Encoding: chunked, chunked", body=CHUNKS),
    "identity": post(b"Transfer-Encoding: identity", LENGTH),
    "chunked, identity": post(b"Transfer-Encoding: chunked, identity", body=CHUNKS),
    "identity, chunked": post(b"Transfer-Encoding: identity, chunked", body=CHUNKS),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=CHUNKS),
    "a quoted coding": post(b'Transfer-Encoding: "chunked"', body=CHUNKS),
    "a coding with a vertical tab": post(b"Transfer-Encoding:\x0bchunked", body=CHUNKS),
    "a coding with a form feed": post(b"Transfer-Encoding: chunked\x0c", body=CHUNKS),
    "a coding with a parameter": post(b"Transfer-Encoding: chunked;q=1", body=CHUNKS),
    "an x before the coding": post(b"Transfer-Encoding: xchunked", body=CHUNKS),
    "a blank before the colon": post(b"Transfer-Encoding : chunked", LENGTH, body=CHUNKS),
    "a tab before the colon": post(b"Content-Length\t: %d" % len(BODY)),
    "a blank before the name": post(b" Transfer-Encoding: chunked", LENGTH),
    "obs-fold": post(b"X-Note: a\r\n Content-Length: 0", LENGTH),
    "obs-fold of a length": post(b"Content-Length:\r\n %d" % len(BODY)),
    "obs-fold of a coding": post(b"Transfer-Encoding:\r\n chunked", body=CHUNKS),
    "bare LF line ends": post(LENGTH, end=b"\n"),
    "one bare LF": post(b"X-Note: a\nTransfer-Encoding: chunked", LENGTH),
    "one bare CR": post(b"X-Note: a\rTransfer-Encoding: chunked", LENGTH),
    "a NUL in a value": post(b"X-Note: a\0b", LENGTH),
    "a NUL in a name": post(b"X\0Note: a", LENGTH),
    "no name": post(b": a", LENGTH),
    "no colon": post(b"X-Note", LENGTH),
    "two hosts": post(b"Host: b", LENGTH),
    "a chunk size past 64 bits": post(CHUNKED, body=b"10000000000000001\r\n" + BODY),
    "a chunk of 1 GiB": post(CHUNKED, body=b"40000000\r\n" + b"x" * 100_000),
    "a chunk size with 0x": post(CHUNKED, body=b"0x53\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk size with a sign": post(CHUNKED, body=b"+53\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a negative chunk size": post(CHUNKED, body=b"-1\r\n" + BODY),
    "an empty chunk size": post(CHUNKED, body=b"\r\n" + BODY),
    "a chunk longer than it says": post(CHUNKED, body=b"5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk without its CRLF": post(CHUNKED, body=b"%x\r\n%b0\r\n\r\n" % (len(BODY), BODY)),
    "chunks with bare LF": post(CHUNKED, body=b"%x\n%b\n0\n\n" % (len(BODY), BODY)),
    "a chunk extension with a bare LF": post(CHUNKED, body=b"%x;a\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "a chunk extension without an end": post(CHUNKED, body=b"1;" + b"a" * 100_000),
    "a request line with a bare CR": post(LENGTH, line=b"POST /mcp\rGET /smuggled HTTP/1.1"),
    "a request line with a NUL": post(LENGTH, line=b"POST /m\0cp HTTP/1.1"),
    "HTTP/0.9": b"GET /smuggled\r\n\r\n",
    "HTTP/2.0 in the line": post(LENGTH, line=b"POST /mcp HTTP/2.0"),
    "HTTP/1.10": post(LENGTH, line=b"POST /mcp HTTP/1.10"),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": post(b"Content-Length: 0", body=SECOND, line=b"CONNECT a:80 HTTP/1.1"),
    "Upgrade": post(b"Connection: upgrade", b"Upgrade: websocket", LENGTH),
    "h2c": post(b"Connection: upgrade, http2-settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAA", LENGTH),
    "an absolute target": post(LENGTH, line=b"POST http://b/mcp HTTP/1.1"),
    "a length in a trailer": post(CHUNKED, body=CHUNKS[:-2] + b"Content-Length: 0\r\n\r\n"),
    "a coding in a trailer": post(CHUNKED, body=CHUNKS[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"),
    "a body cut off": post(b"Content-Length: %d" % (len(BODY) + 1)),
    "a chunked body cut off": post(CHUNKED, body=CHUNKS[:-3]),
}
TWINS = {
    "a length": (post(LENGTH), [BODY]),
    "a length with blanks around": (post(b"Content-Length: \t%d\t " % len(BODY)), [BODY]),
    "chunks": (post(CHUNKED, body=CHUNKS), [BODY]),
    "chunks, spelt otherwise": (post(b"tRANSFER-eNCODING:\tChunked ", body=CHUNKS), [BODY]),
    "chunks with extensions and a trailer": (post(CHUNKED, body=b"%x;a=b;c\r\n%b\r\n0\r\nX-Note: a\r\n\r\n" % (len(BODY), BODY)), [BODY]),
    "chunks with leading zeros": (post(CHUNKED, body=b"000%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)), [BODY]),
    "many small chunks": (post(CHUNKED, body=b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"), [BODY]),
    "two requests in one go, both judged": (post(LENGTH) + SECOND, [BODY, HIDDEN]),
    "a request written in a JSON text": (lambda raw: (post(b"Content-Length: %d" % len(raw), body=raw), [raw]))(
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a", "arguments": {"t": SECOND.decode()}}}).encode()
    ),
    "a hop-by-hop length": (post(LENGTH, b"Connection: content-length, transfer-encoding, host"), [BODY]),
    "fields that proxies trust": (post(LENGTH, b"Trailer: x", b"TE: trailers", b"Keep-Alive: 5", b"Proxy-Connection: close"), [BODY]),
}
UNFINISHED = {"a body cut off", "a chunked body cut off", "HTTP/0.9"}
"""Nothing is answered where the rest could still come: the connection just ends."""


@pytest.fixture(scope="module", params=SERVERS)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    if request.param == "node" and not NODE.exists():
        pytest.skip("the npm packages of tests/real are not installed")
    with behind(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


def test_what_two_parsers_could_read_apart_never_reaches_the_server(target: Behind) -> None:
    target.seen(), target.judged()
    for name, raw in REFUSED.items():
        for pieces in ((raw,), (raw[: len(raw) // 2], raw[len(raw) // 2 :])):
            answer = target.say(*pieces)
            assert target.seen() == [] and target.judged() == [], name
            refused = answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")) and b"Holdfast: " in answer and b"connection: close" in answer
            assert refused or (answer == b"" and name in UNFINISHED), (name, answer)


def test_their_benign_twins_arrive_as_they_were_judged(target: Behind) -> None:
    target.seen(), target.judged()
    for name, (raw, bodies) in TWINS.items():
        answer = target.ask(raw, len(bodies))
        seen = target.seen()
        assert answer.count(b"HTTP/1.1 200") == len(bodies), (name, answer)
        assert [one.body for one in seen] == target.judged() == bodies, name
        for one in seen:
            fields = [field for field, _ in one.headers]
            assert fields.count("content-length") == 1 and "transfer-encoding" not in fields and fields.count("host") == 1, name


def test_made_up_requests_are_seen_as_judged_or_not_at_all(target: Behind) -> None:
    """One that was judged may stay unsent, since its client has left; none is seen that was not judged, and none twice."""
    target.seen(), target.judged()
    chance = random.Random(20_261_123)
    for _ in range(3000 if FULL else 150):
        raw = chance.choice([*SEEDS["http_requests"], b"\0" + post(LENGTH), b"\0" + post(CHUNKED, body=CHUNKS) + SECOND])[1:]
        for _ in range(chance.randrange(5)):
            at = chance.randrange(len(raw) + 1)
            raw = raw[:at] + chance.choice(WORDS["http_requests"]) + raw[at + chance.randrange(4) :]
        target.say(raw)
    target.ask(post(LENGTH), 1)
    seen, judged = Counter(one.body for one in target.seen() if one.body), Counter(target.judged())
    assert seen <= judged and seen[BODY] >= 1
