"""What daemon and worker say to each other over their socket, and how it is checked.

A question is `kind` (one byte), length (four, big-endian) and the bytes to judge; an answer is length and a JSON object. A worker has
read an attacker's bytes and may be his: its answer is bounded, typed, and carries no text of its own; sentences are looked up here
by the rule's id.
"""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import dataclass
from typing import Final, Literal

from enforcer.scanner import rules
from enforcer.scanner.facts import DIGEST_BYTES, HIDDEN_TEXTS
from enforcer.scanner.judge import JUDGE, JUDGE_TEXTS, MAX_POINTER_CHARS, MAX_REASONS
from escrow.verdict import Finding, Reason, Verdict, unsure

Kind = Literal["message", "json", "text"]
"""message: one JSON-RPC message; json: any JSON value; text: anything."""

KINDS: Final[tuple[Kind, ...]] = ("message", "json", "text")
MAX_QUESTION_BYTES: Final = 64 * 1024 * 1024
MAX_ANSWER_BYTES: Final = 1024 * 1024
MAX_SCORES: Final = 2048
QUESTION: Final = struct.Struct(">BI")
ANSWER: Final = struct.Struct(">I")

UNREADABLE_TEXTS: Final = {
    "scanner.unreadable": "It is no message that all peers read alike.",
    "scanner.exhausted": "Judging it needed more memory than a judge is given.",
    "scanner.failed": "The judge failed on it.",
}
_STEP = re.compile(r"[a-z0-9-]{1,32}")


class Garbled(ValueError):
    """A worker's answer is none that an honest worker gives."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the relay must know of a message that only the worker has parsed. digest: SHA-256 of its bytes, in hex."""

    type: Literal["request", "notification", "response"]
    id: int | str | None
    method: str | None
    is_error: bool
    digest: str


@dataclass(frozen=True, slots=True)
class Answer:
    """verdict, and envelope where the question was a readable message. scores: logits of windows by digest, claimed."""

    verdict: Verdict
    envelope: Envelope | None = None
    scores: tuple[tuple[bytes, float], ...] = ()


def texts() -> dict[str, str]:
    """The sentence of every rule id that a worker may name."""
    return {"rule." + rule.id: rule.text for rule in rules.load().rules} | HIDDEN_TEXTS | JUDGE_TEXTS | UNREADABLE_TEXTS


def encode(answer: Answer) -> bytes:
    """An answer's bytes, without their length."""
    verdict, envelope = answer.verdict, answer.envelope
    return json.dumps(
        {
            "finding": verdict.finding.value,
            "score": verdict.score,
            "took_ms": verdict.took_ms,
            "reasons": [[reason.rule, reason.pointer, reason.span, reason.via] for reason in verdict.reasons],
            "envelope": None if envelope is None else [envelope.type, envelope.id, envelope.method, envelope.is_error, envelope.digest],
            "scores": [[key.hex(), round(logit, 4)] for key, logit in answer.scores[:MAX_SCORES]],
        }
    ).encode("ascii")


def decode(raw: bytes, sentences: dict[str, str]) -> Answer:
    """Check and type an answer. Raises Garbled."""
    try:
        table = json.loads(raw)
        finding = Finding(_str(table["finding"]))
        score, took_ms = _number(table["score"], 1.0), _number(table["took_ms"], 1e9)
        rows, scores = table["reasons"], table["scores"]
        if not isinstance(rows, list) or len(rows) > MAX_REASONS or not isinstance(scores, list) or len(scores) > MAX_SCORES:
            raise Garbled("too many rows")
        reasons = tuple(_reason(row, sentences) for row in rows)
        if (finding is Finding.CLEAN) != (not reasons):
            raise Garbled("a finding without a reason, or a reason for none")
        claimed = tuple((_digest(key), _logit(logit)) for key, logit in scores)
        envelope = None if table["envelope"] is None else _envelope(*table["envelope"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise Garbled("the answer has not the shape of one") from problem
    return Answer(Verdict(JUDGE, finding, score, reasons, took_ms), envelope, claimed)


def failed(rule: str) -> Answer:
    """The answer of a worker that could not judge."""
    return Answer(unsure(JUDGE, rule, UNREADABLE_TEXTS[rule]))


def _reason(row: object, sentences: dict[str, str]) -> Reason:
    if not isinstance(row, list) or len(row) != 4:
        raise Garbled("no reason")
    rule, pointer, span, via = row
    if not isinstance(pointer, str) or len(pointer) > MAX_POINTER_CHARS:
        raise Garbled("no pointer")
    if not isinstance(via, list) or len(via) > 32 or not all(isinstance(step, str) and _STEP.fullmatch(step) for step in via):
        raise Garbled("no steps")
    if span is not None:
        start, end = span
        if type(start) is not int or type(end) is not int or not 0 <= start <= end <= 1 << 40:
            raise Garbled("no span")
        span = (start, end)
    return Reason(rule, sentences[_str(rule)], pointer, span, tuple(via))


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise Garbled("no string")
    return value


def _number(value: object, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise Garbled("no number")
    return float(value)


def _logit(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Garbled("no logit")
    return float(value)


def _digest(value: object) -> bytes:
    raw = bytes.fromhex(_str(value))
    if len(raw) != DIGEST_BYTES:
        raise Garbled("no digest")
    return raw


def _envelope(type_: object, id_: object, method: object, is_error: object, digest: object) -> Envelope:
    if type_ not in ("request", "notification", "response") or not isinstance(is_error, bool):
        raise Garbled("no envelope")
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, int | str)):
        raise Garbled("no id")
    if not (method is None or isinstance(method, str)) or (method is None) != (type_ == "response"):
        raise Garbled("no method")
    if not re.fullmatch("[0-9a-f]{64}", _str(digest)):
        raise Garbled("no digest")
    return Envelope(type_, id_, method, is_error, _str(digest))
