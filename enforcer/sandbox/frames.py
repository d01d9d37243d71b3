"""What the daemon and the keeper of the twins say to each other over one stream, and how it is checked.

A question is number, phase, two lengths (big-endian), a head as JSON and the call's own bytes. An answer is number, kind, two lengths, a body as
JSON and the bytes that the twin answered. Neither end trusts the other: whatever does not fit ends the conversation (`Garbled`).

    freeze    freeze the state and start the run; answered by FROZEN at once when the state stands, and by RUN when it is over
    discard   nobody wants the run any more; not answered
    show      what there is; answered by SHOWN
    way back  about a clone for a revert (`way_back.py`, as JSON); answered by TOLD
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from escrow.sandbox.effects import Connect, Effects, Execute, Write
from escrow.sandbox.run import Run

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_RAW_BYTES: Final = 64 << 20
"""Largest call, and largest answer, that crosses."""
MAX_BODY_BYTES: Final = 4 << 20
MAX_EACH: Final = 2000
"""Most effects of one sort; a run with more is incomplete."""
MAX_TEXT: Final = 1024
"""Characters of a path, an argument or a reason."""
MAX_ARGUMENTS: Final = 64
IN_FLIGHT: Final = 32
"""Runs that the daemon waits for at once."""

QUESTION: Final = struct.Struct(">IBII")
ANSWER: Final = struct.Struct(">IBII")


class Garbled(ValueError):
    """What came over the socket is nothing that an honest peer sends."""


class Phase(IntEnum):
    """See the module."""

    FREEZE = 1
    DISCARD = 2
    SHOW = 3
    WAY_BACK = 4


class Kind(IntEnum):
    """Of an answer."""

    FROZEN = 1
    RUN = 2
    SHOWN = 3
    TOLD = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """The head of a question. server: whose twin. id: the request's. session: which earlier calls it follows; "" where each call stands alone.

    tool: what is called, for what is learned of it.
    stateless: whether it is of the stateless era (MCP 2026-07-28), in which requests name the version and results have other members.
    """

    server: str = ""
    id: int | str = 0
    session: str = ""
    stateless: bool = False
    tool: str = ""


_run = TypeAdapter(Run)
_asked = TypeAdapter(Asked)
_NO_HEAD: Final = Asked()


def question(number: int, phase: Phase, asked: Asked = _NO_HEAD, raw: bytes = b"") -> bytes:
    """A question's bytes. Raises Garbled where it passes a bound."""
    head = _asked.dump_json(asked)
    if len(head) > MAX_HEAD_BYTES or len(raw) > MAX_RAW_BYTES:
        raise Garbled("too large")
    return QUESTION.pack(number, phase, len(head), len(raw)) + head + raw


def read_question(head: bytes) -> tuple[int, Phase, int, int]:
    """Number, phase and the two lengths. Raises Garbled."""
    number, phase, head_bytes, raw_bytes = QUESTION.unpack(head)
    if head_bytes > MAX_HEAD_BYTES or raw_bytes > MAX_RAW_BYTES:
        raise Garbled("too large")
    try:
        return number, Phase(phase), head_bytes, raw_bytes
    except ValueError:
        raise Garbled("no phase") from None


def read_asked(head: bytes) -> Asked:
    """Raises Garbled."""
    try:
        return _asked.validate_json(head)
    except ValidationError:
        raise Garbled("no question") from None


def frozen(number: int) -> bytes:
    """The state stands as it was: the real call may go on."""
    return ANSWER.pack(number, Kind.FROZEN, 0, 0)


def ran(number: int, run: Run) -> bytes:
    """A run's bytes, within every bound: what is cut off is said in its effects."""
    answer = run.answer or b""
    if len(answer) > MAX_RAW_BYTES:
        run, answer = replace(run, outcome="failed", answer=None, why="its answer is larger than the bound"), b""
    body = _run.dump_json(replace(run, answer=None if run.answer is None else b"", effects=bounded(run.effects), why=run.why[:MAX_TEXT]))
    if len(body) > MAX_BODY_BYTES:
        emptied = Effects(incomplete=(*bounded(run.effects).incomplete[:8], "it did more than can be told"))
        body = _run.dump_json(replace(run, answer=None if run.answer is None else b"", effects=emptied, why=run.why[:MAX_TEXT]))
    return ANSWER.pack(number, Kind.RUN, len(body), len(answer)) + body + answer


def shown(number: int, value: dict[str, Any]) -> bytes:
    """What there is, as JSON."""
    body = json.dumps(value).encode("ascii")
    if len(body) > MAX_BODY_BYTES:
        body = b"{}"
    return ANSWER.pack(number, Kind.SHOWN, len(body), 0) + body


def told(number: int, body: bytes) -> bytes:
    """About a clone."""
    return ANSWER.pack(number, Kind.TOLD, len(body), 0) + body


def read_answer(head: bytes) -> tuple[int, Kind, int, int]:
    """Number, kind and the two lengths. Raises Garbled."""
    number, kind, body_bytes, answer_bytes = ANSWER.unpack(head)
    if body_bytes > MAX_BODY_BYTES or answer_bytes > MAX_RAW_BYTES:
        raise Garbled("too large")
    try:
        return number, Kind(kind), body_bytes, answer_bytes
    except ValueError:
        raise Garbled("no kind") from None


def read_run(body: bytes, answer: bytes) -> Run:
    """Raises Garbled: no run, or one that passes a bound."""
    try:
        run = _run.validate_json(body)
    except ValidationError:
        raise Garbled("no run") from None
    if bounded(run.effects) != run.effects or len(run.why) > MAX_TEXT:
        raise Garbled("it passes a bound")
    if len(run.learned) > MAX_EACH or any(len(place) > MAX_TEXT for place in run.learned):
        raise Garbled("it passes a bound")
    if (run.answer is None) is not (run.outcome != "answered") or (answer and run.answer is None):
        raise Garbled("an answer without one, or none with one")
    return replace(run, answer=None if run.answer is None else answer)


def read_shown(body: bytes) -> dict[str, Any]:
    """Raises Garbled."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Garbled("no JSON") from None
    if not isinstance(value, dict):
        raise Garbled("no object")
    return value


def bounded(effects: Effects) -> Effects:
    """Effects within the bounds; what was cut makes them incomplete. What is within already is returned as it is."""
    cut = Effects(
        tuple(path[:MAX_TEXT] for path in effects.reads[:MAX_EACH]),
        tuple(Write(each.path[:MAX_TEXT], each.change, each.mode) for each in effects.writes[:MAX_EACH]),
        tuple(Connect(each.address[:MAX_TEXT], each.port, each.name[:MAX_TEXT], each.inside) for each in effects.connects[:MAX_EACH]),
        tuple(Execute(each.path[:MAX_TEXT], tuple(a[:MAX_TEXT] for a in each.arguments[:MAX_ARGUMENTS])) for each in effects.executes[:MAX_EACH]),
        tuple(why[:MAX_TEXT] for why in effects.incomplete[:MAX_ARGUMENTS]),
    )
    if cut == effects:
        return effects
    return replace(cut, incomplete=(*cut.incomplete[: MAX_ARGUMENTS - 1], "more, or longer, than can be told"))
