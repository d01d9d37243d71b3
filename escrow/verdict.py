"""What a judge said: the types every judge speaks and every view shows.

Pure data. A `Verdict` is complete once built; judges make them, the gate reads them, nobody edits them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Finding(StrEnum):
    """A judge's conclusion. UNSURE is what a judge says that crashed, timed out or is missing; it never releases."""

    CLEAN = "CLEAN"
    UNSURE = "UNSURE"
    HOSTILE = "HOSTILE"


@dataclass(frozen=True, slots=True)
class Reason:
    """One ground for a finding, and where it stands.

    rule: stable identifier, `family.name` (`rule.ignore-previous`, `hidden.zero-width`, `model.instruction`).
    text: one sentence by us, in our words; it never quotes the evidence.
    pointer: RFC 6901 JSON pointer of the leaf (value, or key with `#` appended); "" is the whole document.
    span: half-open range of code points in the leaf's text *as unpacked by `via`*, or None for the whole leaf.
    via: decoding steps from the leaf to the text judged, e.g. ("base64", "html"); empty for the leaf as it stands.
    """

    rule: str
    text: str
    pointer: str = ""
    span: tuple[int, int] | None = None
    via: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer about one message.

    judge: "scanner", "sandbox", "tools" (changed tool lists), …
    score: 0.0 (surely clean) to 1.0 (surely hostile), comparable only within one judge.
    took_ms: wall time the judge needed, in milliseconds.
    """

    judge: str
    finding: Finding
    score: float
    reasons: tuple[Reason, ...] = ()
    took_ms: float = 0.0


def unsure(judge: str, rule: str, text: str, took_ms: float = 0.0) -> Verdict:
    """The verdict of a judge that could not judge."""
    return Verdict(judge, Finding.UNSURE, 0.5, (Reason(rule, text),), took_ms)


def worst(verdicts: tuple[Verdict, ...]) -> Finding:
    """HOSTILE before UNSURE before CLEAN; no verdict at all is UNSURE."""
    findings = {verdict.finding for verdict in verdicts}
    for finding in (Finding.HOSTILE, Finding.UNSURE, Finding.CLEAN):
        if finding in findings:
            return finding
    return Finding.UNSURE
