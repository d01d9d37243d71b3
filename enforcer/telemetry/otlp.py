"""Evidence entries to an OTLP/HTTP receiver, in batches, each acknowledged before the next one goes.

The SDK's own batch processor drops what does not fit its queue; evidence must not be dropped in silence, so that batches are made here and a
failed one ends the export.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from escrow.evidence.canonical import NotCanonical, decode
from escrow.trace import record_of

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord

_BATCH = 256
_BATCH_BYTES = 4 << 20
"""Receivers commonly refuse more than that at once."""


class ExportFailed(Exception):
    """The receiver did not take a batch, or the SDK is missing. sent: entries taken before."""

    def __init__(self, text: str, sent: int = 0) -> None:
        super().__init__(text)
        self.sent = sent


def export(entries: Iterable[bytes], url: str, *, timeout_s: float = 10.0) -> int:
    """Send entries (canonical JSON, as the log holds them) to `url`, the full address of the signal, as in `http://localhost:4318/v1/logs`.

    Returns how many were taken. Raises ExportFailed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.sdk._logs import ReadableLogRecord
        from opentelemetry.sdk._logs.export import LogRecordExportResult
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    except ImportError:
        raise ExportFailed("the OpenTelemetry SDK is not installed: pip install 'holdfast[otel]'") from None
    resource, scope = Resource.create({"service.name": "holdfast"}), InstrumentationScope("holdfast.evidence")
    exporter = OTLPLogExporter(endpoint=url, timeout=timeout_s)
    sent, at = 0, iter(entries)
    try:
        while batch := _batch(at):
            records: list[ReadableLogRecord] = [ReadableLogRecord(_record(entry), resource, scope) for entry in batch]
            if exporter.export(records) is not LogRecordExportResult.SUCCESS:
                raise ExportFailed(f"the receiver did not take entries {sent} to {sent + len(batch) - 1}", sent)
            sent += len(batch)
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]
    return sent


def _batch(entries: Iterable[bytes]) -> list[bytes]:
    batch: list[bytes] = []
    size = 0
    for entry in islice(entries, _BATCH):
        batch.append(entry)
        size += len(entry)
        if size > _BATCH_BYTES:
            break
    return batch


def _record(line: bytes) -> Any:
    """One entry as a log record: the entry itself is the body; what is searched for stands in attributes."""
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    try:
        entry = decode(line)
    except NotCanonical as error:
        raise ExportFailed(f"an entry is damaged ({error}); holdfast audit verify says which") from None
    severities = {"CLEAN": SeverityNumber.INFO, "UNSURE": SeverityNumber.WARN, "HOSTILE": SeverityNumber.ERROR}
    severity = {"bypass": SeverityNumber.ERROR, "not-enforcing": SeverityNumber.ERROR, "loss": SeverityNumber.WARN}.get(entry["event"], SeverityNumber.INFO)
    attributes: dict[str, Any] = {"holdfast.seq": entry["seq"]}
    context = None
    if (record := record_of(entry)) is not None:
        severity = severities[record.scan.verdict]
        attributes |= {
            "holdfast.direction": record.direction,
            "holdfast.finding": record.scan.verdict,
            "holdfast.score": float(record.scan.score),
            "holdfast.rules": list(record.scan.findings),
            "holdfast.tool": entry.get("tool", ""),
        }
        if record.pid is not None:
            attributes |= {"process.pid": record.pid, "process.executable.name": record.process}
        if record.trace_id:  # the message's span is its sender's and not known; a span id of zeros is none, and says so
            trace = int(record.trace_id, 16)
            context = set_span_in_context(NonRecordingSpan(SpanContext(trace, 0, is_remote=True, trace_flags=TraceFlags(0))))
    at = datetime.fromisoformat(entry["at"])
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    time_ns = ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
    return LogRecord(
        timestamp=time_ns,
        observed_timestamp=time_ns,
        context=context,
        severity_number=severity,
        severity_text=severity.name,
        body=line.decode(),
        attributes=attributes,
        event_name=f"holdfast.{entry['event']}",
    )
