"""What daemon and worker say to each other over their socket, and how it is checked.

A question is `kind` (one byte), length (four, big-endian) and the bytes to judge; an answer is length and a JSON object. A worker has
read an attacker's bytes and may be his: its answer is bounded, typed, and carries no text of its own; sentences are looked up here
by the rule's id. What it says of identifiers and canaries are digests: it is not told which of them matter.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from dataclasses import dataclass
from typing import Final, Literal

from enforcer.scanner import outgoing, rules
from enforcer.scanner.facts import DIGEST_BYTES, HIDDEN_TEXTS
from enforcer.scanner.judge import JUDGE, JUDGE_TEXTS, MAX_POINTER_CHARS, MAX_REASONS
from escrow.identifiers import KINDS as IDENTIFIERS
from escrow.identifiers import MOST, MOST_WORDS, SIZE, WORD_BYTES
from escrow.taint import NOTHING, Sighting, Sightings
from escrow.verdict import Finding, Reason, Verdict, unsure

Kind = Literal["message", "json", "text", "request"]
"""message: one JSON-RPC message of a server; json: any JSON value; text: anything; request: one JSON-RPC message of a client."""

KINDS: Final[tuple[Kind, ...]] = ("message", "json", "text", "request")
MAX_QUESTION_BYTES: Final = 64 * 1024 * 1024
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
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
    """verdict, and envelope where the question was a readable message. scores: logits of windows by digest, claimed.

    seen: whom the message names. signs: canaries in a client's message, whosoever's.
    """

    verdict: Verdict
    envelope: Envelope | None = None
    scores: tuple[tuple[bytes, float], ...] = ()
    seen: Sightings = NOTHING
    signs: tuple[tuple[str, outgoing.Place], ...] = ()


def texts() -> dict[str, str]:
    """The sentence of every rule id that a worker may name."""
    return (
        {"rule." + rule.id: rule.text for rule in (*rules.load().rules, *rules.load_definitions().rules)}
        | HIDDEN_TEXTS
        | JUDGE_TEXTS
        | UNREADABLE_TEXTS
        | outgoing.texts()
    )


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
            "seen": [
                answer.seen.cut,
                _packed(b"".join(sighting.identifier for sighting in answer.seen.found)),
                [[sighting.pointer, sighting.span, sighting.via] for sighting in (answer.seen.found if verdict.judge == outgoing.JUDGE else ())],
                [[pointer, _packed(digests)] for pointer, digests in answer.seen.words],
            ],
            "signs": [[name, place.pointer, place.span, place.via] for name, place in answer.signs],
            "scores": [[key.hex(), round(logit, 4)] for key, logit in answer.scores[:MAX_SCORES]],
        }
    ).encode("ascii")


def decode(raw: bytes, sentences: dict[str, str], kind: Kind = "message") -> Answer:
    """Check and type an answer to a question of that kind. Raises Garbled."""
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
        claimed = tuple((bytes.fromhex(_hex(key, DIGEST_BYTES)), _logit(logit)) for key, logit in scores)
        envelope = None if table["envelope"] is None else _envelope(*table["envelope"])
        seen = _seen(*table["seen"])
        signs = tuple((_hex(name, 32), outgoing.Place(*_place(pointer, span, via))) for name, pointer, span, via in table["signs"][:MAX_REASONS])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise Garbled("the answer has not the shape of one") from problem
    return Answer(Verdict(judge_of(kind), finding, score, reasons, took_ms), envelope, claimed, seen, signs)


def failed(rule: str, kind: Kind = "message") -> Answer:
    """The answer of a worker that could not judge."""
    return Answer(unsure(judge_of(kind), rule, UNREADABLE_TEXTS[rule]))


def judge_of(kind: Kind) -> str:
    """Who judges a question of that kind."""
    return outgoing.JUDGE if kind == "request" else JUDGE


def _reason(row: object, sentences: dict[str, str]) -> Reason:
    if not isinstance(row, list) or len(row) != 4:
        raise Garbled("no reason")
    rule, pointer, span, via = row
    return Reason(rule, sentences[_str(rule)], *_place(pointer, span, via))


def _place(pointer: object, span: object, via: object) -> tuple[str, tuple[int, int] | None, tuple[str, ...]]:
    if not isinstance(pointer, str) or len(pointer) > MAX_POINTER_CHARS:
        raise Garbled("no pointer")
    if not isinstance(via, list) or len(via) > 32 or not all(isinstance(step, str) and _STEP.fullmatch(step) for step in via):
        raise Garbled("no steps")
    if span is None:
        return pointer, None, tuple(via)
    if not isinstance(span, list) or len(span) != 2 or type(span[0]) is not int or type(span[1]) is not int or not 0 <= span[0] <= span[1] <= 1 << 40:
        raise Garbled("no span")
    return pointer, (span[0], span[1]), tuple(via)


def _packed(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _unpacked(text: object, step: int, most: int) -> bytes:
    raw = base64.b64decode(_str(text), validate=True)
    if len(raw) % step or len(raw) > step * most:
        raise Garbled("no digests")
    return raw


def _seen(cut: object, packed: object, places: object, words: object) -> Sightings:
    """Identifiers come with their places, or all without."""
    raw = _unpacked(packed, SIZE, 2 * MOST)
    identifiers = [raw[at : at + SIZE] for at in range(0, len(raw), SIZE)]
    if not isinstance(cut, bool) or not isinstance(places, list) or not isinstance(words, list) or len(places) not in (0, len(identifiers)):
        raise Garbled("no sightings")
    if any(identifier[:1] not in IDENTIFIERS for identifier in identifiers):
        raise Garbled("no identifier")
    found = [Sighting(identifier, *_place(*place)) for identifier, place in zip(identifiers, places or [["", None, []]] * len(identifiers), strict=True)]
    spoken = tuple((_place(pointer, None, [])[0], _unpacked(digests, WORD_BYTES, MOST_WORDS)) for pointer, digests in words)
    return Sightings(tuple(found), cut, spoken)


def _hex(value: object, size: int) -> str:
    if not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", _str(value)):
        raise Garbled("no digest")
    return _str(value)


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


def _envelope(type_: object, id_: object, method: object, is_error: object, digest: object) -> Envelope:
    if type_ not in ("request", "notification", "response") or not isinstance(is_error, bool):
        raise Garbled("no envelope")
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, int | str)):
        raise Garbled("no id")
    if not (method is None or isinstance(method, str)) or (method is None) != (type_ == "response"):
        raise Garbled("no method")
    return Envelope(type_, id_, method, is_error, _hex(digest, 32))
