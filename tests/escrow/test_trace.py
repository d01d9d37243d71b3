"""Traces: which one a message belongs to, and the record of what was judged."""

from __future__ import annotations

import itertools
import json

import pytest

from escrow.evidence.canonical import decode, encode
from escrow.evidence.entry import Judged, Observed, Started
from escrow.trace import Record, Traces, in_meta, record_of, trace_id
from escrow.verdict import Finding, Reason, Verdict

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{ID}-00f067aa0ba902b7-01"


@pytest.mark.parametrize("good", [PARENT, f" {PARENT}\t", f"01-{ID}-00f067aa0ba902b7-01-what-comes", f"cc-{ID}-00f067aa0ba902b7-00"])
def test_a_traceparent_names_its_trace(good: str) -> None:
    assert trace_id(good) == ID


BAD = [
    *(None, "", "x", PARENT.upper(), PARENT[:-1], PARENT + "\n", PARENT + "x", PARENT + "-more"),
    *(f"ff-{ID}-00f067aa0ba902b7-01", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{ID}-{'0' * 16}-01", f"01-{ID}-00f067aa0ba902b7-01" + "-x" * 500),
]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_traceparent_names_none(bad: str | None) -> None:
    assert trace_id(bad) is None


def test_a_messages_meta_may_name_it() -> None:
    assert in_meta({"_meta": {"traceparent": PARENT}}) == ID
    assert [in_meta(odd) for odd in ({}, {"_meta": 1}, {"_meta": {"traceparent": 7}})] == [None, None, None]


def test_a_session_has_one_trace_of_its_own_and_a_named_one_goes_first() -> None:
    assert Traces(lambda: bytes(16)).of("a") == "0" * 31 + "1"  # all zeros is no trace id
    numbers = itertools.count(7)
    traces = Traces(lambda: next(numbers).to_bytes(16, "big"), most=2)
    first = traces.of("a")
    assert traces.of("a", None) == first and traces.of("a", None, ID) == ID
    assert traces.of("b") != first
    traces.of("c")
    assert traces.of("b") == f"{8:032x}"  # used last but one: still known
    assert traces.of("a") != first  # forgotten


def observed(*, content: bool, complete: bool = True, findings: tuple[Finding, ...] = (Finding.CLEAN,)) -> Observed:
    verdicts = tuple(Verdict("scanner", finding, 0.25, (Reason("rule.one", ""), Reason("rule.one", ""))) for finding in findings)
    return Observed(ID, "to-client", "rpc", "tools/call", "x", 4711, "python3", "a > b", b"the message\n", complete, verdicts, content)


def entry(event: Observed | Judged | Started) -> dict[str, object]:
    return decode(encode(event, 3, "2026-11-23T12:00:00.000000Z", b"s" * 32))


def test_an_entry_becomes_a_record_with_its_content_in_audit_mode_only() -> None:
    with_content, without = record_of(entry(observed(content=True))), record_of(entry(observed(content=False)))
    assert without is not None and without.content is None and without.raw() is None
    assert with_content is not None and with_content.raw() == b"the message\n"
    assert json.loads(with_content.line()) == {
        "trace_id": ID,
        "direction": "to-client",
        "pid": 4711,
        "process": "python3",
        "content": "dGhlIG1lc3NhZ2UK",
        "scan": {"verdict": "CLEAN", "score": 0.25, "findings": ["rule.one"]},
        "timestamp": "2026-11-23T12:00:00.000000Z",
    }
    assert "\n" not in with_content.line()


@pytest.mark.parametrize(
    "findings, complete, worst",
    [
        ((Finding.CLEAN, Finding.HOSTILE, Finding.UNSURE), True, "HOSTILE"),
        ((), True, "UNSURE"),
        ((Finding.CLEAN,), False, "UNSURE"),
        ((Finding.HOSTILE,), False, "HOSTILE"),
    ],
)
def test_nothing_is_clean_that_was_not_seen_whole_and_judged(findings: tuple[Finding, ...], complete: bool, worst: str) -> None:
    record = record_of(entry(observed(content=False, complete=complete, findings=findings)))
    assert isinstance(record, Record) and record.scan.verdict == worst


def test_other_entries_have_no_record() -> None:
    assert record_of(entry(Started("1", "observe", "s", "p", 1))) is None
