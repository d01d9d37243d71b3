"""Entries as bytes: whatever happened, the encoding is RFC 8785's, and nothing else is read back."""

from __future__ import annotations

import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from escrow.call import Kind
from escrow.decision import Ruling
from escrow.evidence import entry
from escrow.evidence.canonical import NotCanonical, decode, encode
from escrow.item import State
from escrow.verdict import Finding, Reason, Verdict

SECRET = b"s" * 32
TEXT = st.text(max_size=40)  # lone surrogates are left out: they have a test of their own
VERDICT = st.builds(
    Verdict,
    TEXT,
    st.sampled_from(Finding),
    st.floats(),
    st.lists(st.builds(Reason, TEXT, TEXT), max_size=4).map(tuple),
)
HASH = st.binary(min_size=32, max_size=32).map(bytes.hex)
EVENT: st.SearchStrategy[entry.Event] = st.one_of(
    st.builds(entry.Started, TEXT, TEXT, TEXT, TEXT, st.integers(0, 2**22)),
    st.builds(entry.Stopped, TEXT),
    st.builds(entry.Enforcing, TEXT),
    st.builds(entry.NotEnforcing, TEXT),
    st.builds(
        entry.Judged,
        st.sampled_from(["to-client", "to-server"]),
        *[TEXT] * 4,
        st.none() | TEXT,
        st.none() | HASH,
        st.binary(max_size=60),
        st.lists(VERDICT, max_size=10).map(tuple),
        *[TEXT] * 3,
        st.none() | TEXT,
        st.none() | st.binary(min_size=16, max_size=16),
        st.booleans(),
    ),
    st.builds(entry.Decided, *[TEXT] * 7, st.none() | st.binary(max_size=60), st.none() | st.binary(min_size=16, max_size=16)),
    st.builds(entry.PolicyChanged, *[TEXT] * 4),
    st.builds(entry.Locked, TEXT, TEXT),
    st.builds(entry.Unlocked, TEXT, TEXT),
    st.builds(entry.Trusted, TEXT, st.lists(st.tuples(TEXT, HASH), max_size=4).map(tuple), TEXT),
    st.builds(entry.TokenChanged, st.sampled_from(["made", "revoked"]), TEXT, TEXT, TEXT, st.none() | TEXT),
    st.builds(entry.CanaryChanged, st.sampled_from(["made", "removed"]), TEXT, TEXT),
    st.builds(entry.Lost, TEXT, st.integers(0, 2**40), TEXT, st.sampled_from(["records", "bytes"])),
)
AT = "2026-11-23T12:00:00.000000Z"


@given(EVENT, st.integers(0, 2**53 - 1))
def test_every_entry_is_encoded_as_rfc_8785_says_and_read_back(event: entry.Event, seq: int) -> None:
    line = encode(event, seq, AT, SECRET)
    assert line == rfc8785.dumps(json.loads(line)) and b"\n" not in line
    value = decode(line)
    assert (value["event"], value["seq"], value["at"]) == (event.event, seq, AT)


@pytest.mark.parametrize("score", [0.0, 1.0, 1e-9, 0.00004, 0.0001, 0.12345, 0.9999, 0.99999, float("nan"), float("inf"), float("-inf"), -0.0])
def test_scores_are_written_as_rfc_8785_writes_numbers(score: float) -> None:
    line = encode(_judged(verdicts=(Verdict("scanner", Finding.CLEAN, score),)), 0, AT, SECRET)
    assert line == rfc8785.dumps(json.loads(line))


def test_words_of_an_enumeration_are_written_as_their_values() -> None:
    event = entry.Judged("to-client", Kind.TOOL_CALL, "t", "s", "p", None, None, b"{}", (), Ruling.HOLD, "unsure", "v")
    found = decode(encode(event, 0, AT, SECRET))
    assert (found["kind"], found["ruling"]) == ("tools/call", "hold")
    assert decode(encode(entry.Decided("hf-1", State.DENIED, "me", "why", "t", "p", "v"), 0, AT, SECRET))["state"] == "denied"


def test_a_lone_surrogate_in_a_name_does_not_stop_the_log() -> None:
    assert decode(encode(_judged(tool="a\ud800b"), 0, AT, SECRET))["tool"] == "a?b"


def test_what_an_attacker_can_make_long_is_cut() -> None:
    long = "x" * 10_000
    verdicts = tuple(Verdict(long, Finding.HOSTILE, 1.0, tuple(Reason(f"{n}{long}", long) for n in range(100))) for _ in range(50))
    line = encode(_judged(tool=long, verdicts=verdicts), 0, AT, SECRET)
    assert len(line) < 512 * (entry.MAX_VERDICTS * (entry.MAX_RULES + 2) + 20)
    assert len(encode(entry.Trusted("s", tuple((long, long) for _ in range(5000)), "me"), 0, AT, SECRET)) < 2 * 600 * entry.MAX_TOOLS


def test_a_message_itself_is_written_only_where_asked_and_only_up_to_a_bound() -> None:
    assert b"secret" not in encode(_judged(message=b"secret"), 0, AT, SECRET)
    assert decode(encode(_judged(message=b"secret", content=True), 0, AT, SECRET))["content"] == "c2VjcmV0"
    assert "content" not in decode(encode(_judged(message=b"x" * (entry.MAX_CONTENT + 1), content=True), 0, AT, SECRET))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans(), st.booleans())
def test_what_is_read_is_exactly_what_rfc_8785_would_write(value: object, separators: tuple[str, str], ascii_only: bool, ordered: bool) -> None:
    """The quick way of the reader and the library never disagree."""
    line = json.dumps({"at": AT, "event": "x", "seq": 0, "value": value}, separators=separators, ensure_ascii=ascii_only, sort_keys=ordered).encode()
    try:
        canonical: bytes | None = rfc8785.dumps(json.loads(line))
    except ValueError:
        canonical = None
    try:
        assert decode(line) == json.loads(line)
        assert line == canonical
    except NotCanonical:
        assert line != canonical


@pytest.mark.parametrize(
    "line",
    [
        b'{"at":"a","event":"b","seq":0,"seq":0}',
        b'{"event":"b","at":"a","seq":0}',
        b'{"at":"a","event":"b","seq":0} ',
        b'{"at":"a","event":"b","seq":00}',
        b'{"at":"a","event":"b","seq":-0}',
        b'{"at":"a","event":"b","seq":0.0}',
        b'{"at":"a","event":"b","seq":0,"x":1.0}',
        b'{"at":"a","event":"b","seq":0,"x":1e5}',
        b'{"at":"a","event":"b","seq":0,"x":9007199254740993}',
        b'{"at":"a","event":"b","seq":0,"x":' + b"9" * 5000 + b"}",
        b'{"at":"a","event":"b","seq":0,"x":NaN}',
        b'{"at":"a","event":"b","seq":0,"x":"\\u0041"}',
        b'{"at":"a","event":"b","seq":0,"x":"\\ud800"}',
        b'{"at":"a","event":"b","seq":0,"x":"\\/"}',
        b'{"at":"a","event":"b","seq":0,"x":"\xff"}',
        b'{"at":"a","event":"b","seq":true}',
        b'{"at":"a","event":"b"}',
        b'{"at":1,"event":"b","seq":0}',
        b"[]",
        b"",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_json_in_any_other_form_is_refused(line: bytes) -> None:
    with pytest.raises(NotCanonical):
        decode(line)


def _judged(tool: str = "t", message: bytes = b"{}", verdicts: tuple[Verdict, ...] = (), content: bool = False) -> entry.Judged:
    return entry.Judged("to-client", "tools/call", tool, "s", "p", None, None, message, verdicts, "release", "scanner only", "v", content=content)
