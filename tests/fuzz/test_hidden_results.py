"""What a server hides from judges by the way it writes: held or refused, with the reason said, through the real gate; its benign twin passes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.faults.upstream import CLEAN, HOSTILE
from tests.faults.world import ONE_WORKER, control
from tests.real import gate as gates
from tests.real.gate import Gate
from tests.real.hostile import SECRET
from tests.real.servers.scripted import SSE_HEAD, Asked, Scripted, Segment, chunk, json_answer, scripted

LIMIT_S = 10.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
GIB = 1 << 30


def result(text: str, extra: bytes = b"") -> bytes:
    """A tool's result; `extra` are further members of it, as bytes."""
    content = json.dumps([{"type": "text", "text": text}]).encode()
    return b'{"jsonrpc":"2.0","id":1,"result":{"content":' + content + (b"," + extra if extra else b"") + b"}}"


def lines(message: bytes, end: bytes = b"\n") -> bytes:
    """The message as an event of many data lines."""
    pretty = json.dumps(json.loads(message), indent=1).encode().split(b"\n")
    return b"".join(b"data: " + line + end for line in pretty) + end


def stream(*events: bytes) -> list[bytes]:
    return [SSE_HEAD, *(chunk(event) for event in events), chunk(b"")]


def bytewise(events: bytes) -> list[bytes]:
    return [SSE_HEAD, b"".join(chunk(events[at : at + 1]) for at in range(len(events))), chunk(b"")]


def nested(depth: int) -> bytes:
    return b'"deep":' + b"[" * depth + b"]" * depth


@dataclass(frozen=True, slots=True)
class Case:
    """hostile, twin: what the server sends. says: what stands in the answer to the hostile one (None: it is held, and the claim says so)."""

    hostile: list[bytes]
    twin: list[bytes]
    says: str | None = None


BAD, GOOD = result(HOSTILE), result(CLEAN)
CUT_OFF = "closed the connection in the middle"
UNREAD = "cannot be read in one way only"
CASES = {
    "many data lines": Case(stream(lines(BAD)), stream(lines(GOOD))),
    "CR line ends": Case(stream(lines(BAD, b"\r")), stream(lines(GOOD, b"\r"))),
    "CRLF split between CR and LF": Case(stream(b"data: " + BAD + b"\r", b"\n\r", b"\n"), stream(b"data: " + GOOD + b"\r", b"\n\r", b"\n")),
    "a byte in each chunk": Case(bytewise(b"data: " + BAD + b"\n\n"), bytewise(b"data: " + GOOD + b"\n\n")),
    "a byte order mark before": Case(stream(b"\xef\xbb\xbfdata: " + BAD + b"\n\n"), stream(b"\xef\xbb\xbfdata: " + GOOD + b"\n\n")),
    "an event name of 100 kB": Case(
        stream(b"event: " + b"x" * 100_000 + b"\ndata: " + BAD + b"\n\n"), stream(b"event: " + b"x" * 100_000 + b"\ndata: " + GOOD + b"\n\n")
    ),
    "another event name": Case(stream(b"event: other\ndata: " + BAD + b"\n\n"), stream(b"event: other\ndata: " + GOOD + b"\n\n")),
    "a NUL in the event's id": Case(stream(b"id: \0\ndata: " + BAD + b"\n\n"), stream(b"id: \0\ndata: " + GOOD + b"\n\n")),
    "a comment amid the event": Case(stream(b"data: " + BAD[:9] + b"\n: x\ndata: " + BAD[9:] + b"\n\n"), stream(b": x\ndata: " + GOOD + b"\n: y\n\n"), UNREAD),
    "an event behind a comment": Case(stream(b": " + GOOD + b"\n\n", b"data: " + BAD + b"\n\n"), stream(b": " + BAD + b"\n\n", b"data: " + GOOD + b"\n\n")),
    "an event that is no message": Case(stream(b"data: " + HOSTILE.encode() + b"\n\n"), stream(b"data: " + GOOD + b"\n\n"), UNREAD),
    "invalid UTF-8 in an event": Case(stream(b"data: " + BAD.replace(b"Ignore", b"Ig\xffnore") + b"\n\n"), stream(b"data: " + GOOD + b"\n\n"), UNREAD),
    "nesting of 10,000": Case([json_answer(result(HOSTILE, nested(10_000)))], [json_answer(result(CLEAN, nested(100)))], "nested deeper than 128 levels"),
    "nesting of 10,000 in an event": Case(stream(b"data: " + result(HOSTILE, nested(10_000)) + b"\n\n"), stream(b"data: " + GOOD + b"\n\n"), UNREAD),
    "one key twice": Case([json_answer(GOOD[:-1] + b"," + BAD[BAD.index(b'"result"') :])], [json_answer(result(CLEAN, b'"a":1,"b":1'))], "names one key twice"),
    "one key twice, escaped": Case([json_answer(result(CLEAN, b'"conten\\u0074":"' + HOSTILE.encode() + b'"'))], [json_answer(GOOD)], "names one key twice"),
    "NaN": Case([json_answer(result(HOSTILE, b'"n":NaN'))], [json_answer(result(CLEAN, b'"n":null'))], "NaN"),
    "a number of 5,000 digits": Case(
        [json_answer(result(HOSTILE, b'"n":' + b"9" * 5000))], [json_answer(result(CLEAN, b'"n":9007199254740993'))], "too many digits"
    ),
    "an integer past 2^53 beside it": Case([json_answer(result(HOSTILE, b'"n":9007199254740993'))], [json_answer(result(CLEAN, b'"n":9007199254740993'))]),
    "an id past 2^53": Case([json_answer(BAD.replace(b'"id":1', b'"id":18446744073709551617'))], [json_answer(GOOD)], "does not answer the request"),
    "an id that is 1.0": Case([json_answer(BAD.replace(b'"id":1', b'"id":1.0'))], [json_answer(GOOD)], "neither an integer nor a string"),
    "NULs, escaped": Case([json_answer(result(HOSTILE + "\0"))], [json_answer(result(CLEAN + "\0"))]),
    "a NUL as it is": Case([json_answer(BAD.replace(b"Ignore", b"Ignore\0"))], [json_answer(GOOD)], "it is not MCP"),
    "lone surrogates": Case([json_answer(BAD.replace(b"Ignore", b"\\ud800 Ignore"))], [json_answer(GOOD.replace(b"garden", b"garden \\ud800"))]),
    "invalid UTF-8": Case([json_answer(BAD.replace(b"Ignore", b"Ig\xffnore"))], [json_answer(GOOD.replace(b"garden", "gärden".encode()))], "it is not MCP"),
    "overlong UTF-8": Case([json_answer(BAD.replace(b"Ignore", b"Ignor\xc1\xa5"))], [json_answer(GOOD)], "it is not MCP"),
    "UTF-16": Case([json_answer(BAD.decode().encode("utf-16"))], [json_answer(GOOD)], "it is not MCP"),
    "a batch": Case([json_answer(b"[" + BAD + b"]")], [json_answer(GOOD)], "batches are not accepted"),
    "1 GiB declared": Case([HEAD + b"Content-Length: %d\r\n\r\n" % GIB + BAD], [json_answer(GOOD)], CUT_OFF),
    "a chunk of 1 GiB": Case([HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % GIB + BAD], [json_answer(GOOD)], CUT_OFF),
    "a chunk size past 64 bits": Case([HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\n" + BAD], [json_answer(GOOD)], "malformed HTTP"),
    "both lengths": Case(
        [HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(BAD) + chunk(b"")],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(GOOD) + chunk(b"")],
        "answer is refused",
    ),
    "bare LF": Case([json_answer(BAD).replace(b"\r\n", b"\n")], [json_answer(GOOD)], "answer is refused"),
    "obs-fold": Case([json_answer(BAD, b"X-Note: a\r\n b\r\n")], [json_answer(GOOD, b"X-Note: a b\r\n")], "answer is refused"),
}
ASKED = {
    "nesting of 10,000": (b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested deeper than 128 levels"),
    "one key twice": (b'{"x":1,"x":2}', "names one key twice"),
    "NaN": (b'{"x":NaN}', "NaN"),
    "invalid UTF-8": (b'{"x":"\xff"}', "not UTF-8"),
    "a NUL as it is": (b'{"x":"\0"}', "not JSON"),
    "a number of 5,000 digits": (b'{"x":' + b"9" * 5000 + b"}", "too many digits"),
}


class Server:
    """What the running case wants sent, whether the server leaves then, and the gate before it."""

    def __init__(self) -> None:
        self.segments: list[bytes] = []
        self.leaves = False
        self.scripted: Scripted
        self.gate: Gate

    def script(self, _: Asked) -> Iterator[Segment]:
        yield from map(Segment, self.segments)
        if self.leaves:
            raise ConnectionAbortedError

    def ask(self, arguments: bytes = b"{}") -> bytes:
        """One call, on a connection of its own; everything until its answer is whole or the connection ends."""
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","arguments":' + arguments + b"}}"
        got = b""
        with socket.create_connection(("127.0.0.1", self.gate.port), LIMIT_S) as client:
            head = b"POST /mcp HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            client.sendall(head % len(body) + body)
            while data := client.recv(65536):
                got += data
        return got


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server()
    policy = ONE_WORKER.replace("claim_after_s = 0.3", "claim_after_s = 0.05")
    with scripted(made.script) as running, gates.run(tmp_path_factory.mktemp("hidden"), running.port, policy=policy) as gate:
        made.scripted, made.gate = running, gate
        yield made


@pytest.mark.parametrize("name", CASES)
def test_it_is_held_or_refused_with_its_reason_and_the_twin_passes(name: str, server: Server) -> None:
    case = CASES[name]
    arguments = json.dumps({"case": name}).encode()
    held = control(server.gate, "status")["counters"]["held"]
    server.segments = [b"".join(case.hostile)] if len(case.hostile) < 3 else case.hostile
    server.leaves = case.says == CUT_OFF
    answer = server.ask(arguments)
    assert SECRET.encode() not in answer
    if case.says is None:
        assert control(server.gate, "status")["counters"]["held"] == held + 1 and b"hf-" in answer, answer
    else:
        assert case.says.encode() in answer and control(server.gate, "status")["counters"]["held"] == held, answer
    server.segments, server.leaves = case.twin, False
    answer = server.ask(b'{"twin":' + arguments + b"}")
    assert CLEAN[:20].encode() in answer or b"rden" in answer, answer


@pytest.mark.parametrize("name", ASKED)
def test_a_call_that_can_be_read_in_two_ways_never_reaches_the_server(name: str, server: Server) -> None:
    arguments, says = ASKED[name]
    server.segments, before = [json_answer(GOOD)], len(server.scripted.asked)
    answer = server.ask(arguments)
    assert answer.startswith(b"HTTP/1.1 400") and says.encode() in answer, answer
    assert len(server.scripted.asked) == before
    assert CLEAN.encode() in server.ask(b'{"x":"\\ud800 \\u0000","n":9007199254740993,"deep":' + b"[" * 100 + b"]" * 100 + b"}")
    assert len(server.scripted.asked) == before + 1
