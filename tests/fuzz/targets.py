"""One function for each parser that reads a stranger's bytes. Each takes bytes, calls the parser whole and split, and asserts what it promises:

* nothing is raised but the parser's own error;
* the same bytes cut anywhere are read alike;
* what is read, written again and read by somebody else (`reference`) is the same thing, once.

Pure: no sockets, files or clocks, so that hypothesis and atheris drive the same functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from pydantic import ValidationError

from enforcer.control import asks
from enforcer.evidence import files
from enforcer.evidence.files import Malformed
from enforcer.helper import messages
from enforcer.jury import frames as jury_frames
from enforcer.relay.head import asked, request_head
from enforcer.scanner import frames
from escrow import jsonrpc, jury, leaves
from escrow.call import Transport, call_of
from escrow.evidence.canonical import NotCanonical, decode
from escrow.evidence.note import NoteError, Signed, Verifier, find_notes
from escrow.http.head import BadMessage, Head
from escrow.http.wire import Closed, End, Heads, Wire
from escrow.policy import PolicyError, load
from escrow.principal import Principal
from escrow.redact import NothingToRedact, redact
from escrow.sse import EventTooLarge, Reader, encode
from escrow.supervisor.wire import Question, Reply
from escrow.taint import sightings
from escrow.unpack import Bounds, unpack
from tests.fuzz import reference

MAX_HEAD: Final = 4096
MAX_EVENT: Final = 1 << 14
Target = Callable[[bytes], None]


def _cuts(data: bytes) -> tuple[bytes, list[list[bytes]]]:
    """The input proper, and ways to cut it: whole, in two at a place that the input's first byte names, byte by byte where it is short."""
    seed, data = (data[0], data[1:]) if data else (0, b"")
    at = seed * (len(data) + 1) // 256
    ways = [[data], [data[:at], data[at:]]]
    if len(data) <= 256:
        ways.append([data[n : n + 1] for n in range(len(data))])
    return data, ways


# --- HTTP ---

Message = tuple[str, str, int, tuple[tuple[bytes, bytes], ...], bytes]


def _wire(pieces: list[bytes], *, client: bool, heads: Heads) -> tuple[list[Message], bool]:
    """Whole messages, and whether the end was good. What is wrong with an unfinished message may be noticed earlier or later."""
    wire = Wire(heads, client=client, max_head_bytes=MAX_HEAD)
    good = True
    try:
        for piece in pieces:
            wire.feed(piece)
        wire.eof()
    except (BadMessage, Closed):
        good = False
    found: list[Message] = []
    head, body = None, b""
    for event in wire.events:
        if isinstance(event, Head):
            assert head is None, "a head within a message"
            head, body = event, b""
        elif isinstance(event, End):
            assert head is not None, "an end of nothing"
            found.append((head.method, head.target, head.status, head.headers, body))
            if not head.keep_alive:
                return found, True  # the relay reads no further; what stands behind is refused sooner or later
            head = None
        else:
            assert head is not None, "a body of nothing"
            body += event
    return found, good


_known = {True: Heads(), False: Heads()}
"""Heads of all inputs before: what was remembered must never change what is read."""


def _read_alike(data: bytes, *, client: bool) -> list[Message]:
    _, ways = _cuts(data)
    readings = [_wire(way, client=client, heads=Heads()) for way in ways] + [_wire(way, client=client, heads=_known[client]) for way in ways]
    assert all(reading == readings[0] for reading in readings), "read otherwise when cut otherwise, or when the head is known"
    return readings[0][0]


def http_requests(data: bytes) -> None:
    """What is sent on, written anew, is to another parser exactly the one request that was judged."""
    for method, target, _, headers, body in _read_alike(data, client=True):
        if not target.startswith("/"):
            continue  # refused by the relay
        head = Head(headers, True, method, target)
        seen = reference.requests(request_head(method, target, asked(head), len(body)) + body)
        if seen is None:
            continue  # the server refuses it
        assert len(seen) == 1, "one request became several"
        assert (seen[0].method, seen[0].target, seen[0].body) == (method.encode(), target.encode("latin-1"), body)


def http_responses(data: bytes) -> None:
    _read_alike(data, client=False)


# --- JSON-RPC ---


def json_rpc(data: bytes) -> None:
    try:
        value = jsonrpc.parse(data)
    except jsonrpc.Unreadable:
        return
    assert _same(json.loads(data), value), "read as something else than everybody reads"
    try:
        message = jsonrpc.classify(value, data)
    except jsonrpc.Unreadable:
        return
    assert jsonrpc.is_message(value), "a message that would not have been judged"
    renamed = json.loads(jsonrpc.with_id(data, "x")) if isinstance(message, jsonrpc.Request | jsonrpc.Response) else None
    assert renamed is None or _same(renamed, {**value, "id": "x"}), "a new id changed more than the id"
    if isinstance(message, jsonrpc.Request):
        made = [call_of(message, server="s", principal=Principal("address", "a"), session=None, transport=Transport.SESSION) for _ in range(2)]
        assert made[0].identity == made[1].identity
    sightings(value, asked=True)
    sightings(value, asked=False)


def _same(one: Any, other: Any) -> bool:
    """Equal in value and type: True is not 1, and 1 is not 1.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def redaction(data: bytes) -> None:
    """What a person has cut out stands nowhere in what is released, whatever else the message holds."""
    try:
        jsonrpc.read(data)
        raw = redact(data, "sword[a-z]*")
    except (jsonrpc.Unreadable, NothingToRedact):
        return
    value = jsonrpc.parse(raw)
    for kept in ("jsonrpc", "id", "method"):  # the envelope is never touched
        value.pop(kept, None)
    if isinstance(value.get("error"), dict):
        value["error"].pop("code", None)
    assert not any("sword" in leaf.text for leaf in leaves.leaves(value)), "it is still there"


# --- event streams ---


def sse(data: bytes) -> None:
    """A client of what is sent on sees exactly the events that were judged, and no other in the stream as it came."""
    data, ways = _cuts(data)
    readings = []
    for way in ways:
        reader, found = Reader(MAX_EVENT), []
        try:
            for piece in way:
                found += reader.feed(piece)
        except EventTooLarge:
            return  # when it is noticed depends on the cuts; the stream ends there
        readings.append(found)
    assert all(reading == readings[0] for reading in readings), "read otherwise when cut otherwise"
    events = readings[0]
    written = b"".join(encode(event) for event in events)
    # An event without data carries nothing; whether it is dispatched empty or not at all is the same to all clients.
    judged = [_lines(event.data) for event in events if event.data]
    assert [one.data for one in reference.events(written) if one.data] == [_escaped(data) for data in judged], "what is sent on is read as something else"
    assert [one.data for one in reference.events(data) if one.data] == judged, "a client of the server itself would see others"


def _escaped(text: str) -> str:
    """As it is written where it stands in a JSON string: some clients take these characters for the end of a line."""
    return text.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _lines(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# --- texts ---


def unpacking(data: bytes) -> None:
    bounds = Bounds(depth=4, forms=64, chars=1 << 14)
    found = unpack(data.decode("utf-8", "surrogateescape"), bounds)
    first, *behind = found.forms
    assert first.via == () and sum(len(form.text) for form in behind if form.rule is None) <= bounds.chars + len(first.text)
    assert all(len(form.via) <= bounds.depth + 1 for form in found.forms)


def policy(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        read = load(text, "a fuzzed policy")
    except PolicyError as error:
        assert str(error)
        return
    assert load(text).version == read.version


# --- the evidence log ---


def note(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        signed = Signed.parse(text)
    except NoteError:
        pass
    else:
        assert str(signed) == text, "two texts for one checkpoint"
    try:
        verifier = Verifier.parse(text)
    except NoteError:
        pass
    else:
        assert str(verifier) == text.strip()
    with suppress(NoteError):
        find_notes(text, "holdfast/demo/1")


def entry(data: bytes) -> None:
    try:
        value = decode(data)
    except NotCanonical:
        return
    assert json.loads(data) == value


def log_line(data: bytes) -> None:
    for parse in (files.parse_header, files.parse_frame):
        try:
            parse(data)
        except Malformed:
            continue


# --- what confined processes say, and what is said to them ---

_sentences = frames.texts()


def scanner_answer(data: bytes) -> None:
    """A worker may be an attacker's: its answer is a verdict of known sentences, or Garbled."""
    for kind in frames.KINDS:
        try:
            answer = frames.decode(data, _sentences, kind)
        except frames.Garbled:
            continue
        assert all(reason.text in _sentences.values() for reason in answer.verdict.reasons)
        assert (answer.verdict.finding.value == "clean") == (not answer.verdict.reasons)


def jury_answer(data: bytes) -> None:
    if len(data) >= jury_frames.ANSWER.size:
        try:
            _, opinion = jury_frames.read_answer(data[: jury_frames.ANSWER.size])
        except jury_frames.Garbled:
            pass
        else:
            assert 0 <= opinion.score <= 1
    with suppress(jury_frames.Garbled):
        jury_frames.marks(data)


def jury_model(data: bytes) -> None:
    """What a model answers is an opinion of the fixed list, always."""
    opinion = jury.read(data, "0" * 32)
    assert opinion.rule in jury.OUTCOMES and 0 <= opinion.score <= 1


def control(data: bytes) -> None:
    _validated(asks.ANY.validate_json, data)


def window(data: bytes) -> None:
    _validated(Question.model_validate_json, data)
    _validated(Reply.model_validate_json, data)


def helper(data: bytes) -> None:
    _validated(messages.REQUESTS.validate_json, data)
    _validated(messages.FROM_HELPER.validate_json, data)


def _validated(validate: Callable[[bytes], object], data: bytes) -> None:
    try:
        validate(data)
    except ValidationError as error:
        error.errors(include_input=False)


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (
        http_requests, http_responses, json_rpc, redaction, sse, unpacking, policy, note, entry, log_line,
        scanner_answer, jury_answer, jury_model, control, window, helper,
    )
}  # fmt: skip
