"""Evidence over OTLP: every entry arrives once and in order, or the export says where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("opentelemetry.sdk", reason="needs the extra 'otel'")

from enforcer.cli.app import app
from enforcer.evidence import EvidenceLog
from enforcer.telemetry import ExportFailed, export
from escrow.evidence.canonical import encode
from escrow.evidence.entry import Bypassed, Event, Lost, Observed, Started
from escrow.verdict import Finding, Reason, Verdict
from tests.enforcer.telemetry.receiver import Receiver

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def observed(finding: Finding) -> Observed:
    verdict = Verdict("scanner", finding, 0.5, (Reason("rule.one", ""),))
    return Observed(TRACE, "to-client", "rpc", "tools/call", "get", 4711, "python3", "a > b", b"message", True, (verdict,))


EVENTS: list[Event] = [
    Started("1", "observe", "s", "p", 1),
    observed(Finding.CLEAN),
    observed(Finding.HOSTILE),
    Lost("tap", 3, "ring full"),
    Bypassed(True, "a message was seen that the gate did not release", "a > b", b"x"),
]


def make_log(state: Path) -> None:
    state.mkdir(mode=0o700)
    published: list[str] = []
    log = EvidenceLog.open(state, "port-1", published.append)
    for event in EVENTS:
        log.record(event)
    log.close()


def lines(events: list[Event]) -> list[bytes]:
    return [encode(event, number, "2026-11-23T12:00:00.250000Z", b"s" * 32) for number, event in enumerate(events)]


def test_entries_arrive_as_log_records() -> None:
    with Receiver() as receiver:
        assert export(lines(EVENTS), receiver.url) == 5
    found = receiver.records
    assert receiver.paths == {"/v1/logs"}
    assert [record.body.string_value.encode() for record in found] == lines(EVENTS)
    assert [record.event_name for record in found] == ["holdfast.started", "holdfast.observed", "holdfast.observed", "holdfast.loss", "holdfast.bypass"]
    assert [record.severity_text for record in found] == ["INFO", "INFO", "ERROR", "WARN", "ERROR"]
    assert {record.time_unix_nano for record in found} == {1795435200250000000}
    assert [record.trace_id.hex() for record in found] == ["", TRACE, TRACE, "", ""]
    attributes = {each.key: each.value for each in found[2].attributes}
    assert attributes["holdfast.finding"].string_value == "HOSTILE" and attributes["process.pid"].int_value == 4711
    assert [each.string_value for each in attributes["holdfast.rules"].array_value.values] == ["rule.one"]


def test_many_entries_go_in_batches_and_none_is_dropped() -> None:
    many = lines([observed(Finding.CLEAN)] * 1000)
    with Receiver() as receiver:
        assert export(iter(many), receiver.url) == 1000
    assert [record.body.string_value.encode() for record in receiver.records] == many
    assert len(receiver.batches) == 4


def test_a_receiver_that_refuses_ends_the_export_and_is_told() -> None:
    with Receiver(refuse_after=1) as receiver, pytest.raises(ExportFailed, match="entries 256 to 511") as failed:
        export(lines([observed(Finding.CLEAN)] * 600), receiver.url)
    assert failed.value.sent == 256


def test_a_damaged_entry_ends_the_export() -> None:
    with Receiver() as receiver, pytest.raises(ExportFailed, match="damaged"):
        export([b"{}"], receiver.url)


def test_the_command_sends_the_log_and_writes_records(tmp_path: Path) -> None:
    state, run = tmp_path / "state", tmp_path / "run"
    runner = CliRunner()
    where = ["--state-dir", str(state), "--runtime-dir", str(run)]
    make_log(state)
    with Receiver() as receiver:
        sent = runner.invoke(app, ["audit", "export", "--otlp", receiver.url, *where])
    assert sent.exit_code == 0, sent.output
    assert len(receiver.records) >= len(EVENTS)
    wrote = runner.invoke(app, ["audit", "export", "--records", *where])
    assert [json.loads(line)["scan"]["verdict"] for line in wrote.stdout.splitlines()] == ["CLEAN", "HOSTILE"]
    assert runner.invoke(app, ["audit", "export", "--otlp", "ftp://x", *where]).exit_code == 2
    assert runner.invoke(app, ["audit", "export", "--otlp", receiver.url, "--json", *where]).exit_code == 2


def test_a_receiver_that_is_not_there_is_told() -> None:
    with Receiver() as receiver:
        pass
    with pytest.raises(ExportFailed, match="did not take"):
        export(lines(EVENTS), receiver.url, timeout_s=0.2)
