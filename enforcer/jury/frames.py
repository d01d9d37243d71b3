"""What daemon and member say to each other over their socket, and how it is checked.

A question is number, two lengths (big-endian), the scanner's marks as JSON and the bytes to judge. An answer is number, a place in
`escrow.jury.OUTCOMES` and a score in thousandths: a member has read what a stranger's model wrote and may be his, so it has no words.
"""

from __future__ import annotations

import json
import struct
from typing import Final

from escrow.jury import OUTCOMES, Opinion
from escrow.jury_evidence import Mark

MAX_RAW_BYTES: Final = 256 * 1024
"""Largest message a member takes. Every text in it is unpacked, and only a small part of a larger one could be shown."""

MAX_MARKS: Final = 64
MAX_MARKS_BYTES: Final = 256 * 1024
IN_FLIGHT: Final = 8
"""Questions that the daemon waits for at once. A member may still be at some whose askers have left, and takes twice as many."""

QUESTION: Final = struct.Struct(">III")
ANSWER: Final = struct.Struct(">IBH")


class Garbled(ValueError):
    """What came over the socket is nothing that an honest peer sends."""


def question(number: int, marks: tuple[Mark, ...], raw: bytes) -> bytes:
    """A question's bytes."""
    table = json.dumps([[mark.pointer, *mark.span, mark.via] for mark in marks[:MAX_MARKS]]).encode("ascii")
    return QUESTION.pack(number, len(table), len(raw)) + table + raw


def marks(table: bytes) -> tuple[Mark, ...]:
    """The marks of a question. Raises Garbled."""
    try:
        return tuple(Mark(str(pointer), (int(start), int(end)), tuple(map(str, via))) for pointer, start, end, via in json.loads(table))
    except (ValueError, TypeError, RecursionError) as problem:
        raise Garbled("no marks") from problem


def answer(number: int, opinion: Opinion) -> bytes:
    """An answer's bytes."""
    return ANSWER.pack(number, OUTCOMES.index(opinion.rule), round(opinion.score * 1000))


def read_answer(raw: bytes) -> tuple[int, Opinion]:
    """Number and opinion. Raises Garbled."""
    number, outcome, thousandths = ANSWER.unpack(raw)
    if outcome >= len(OUTCOMES) or thousandths > 1000:
        raise Garbled("no outcome")
    return number, Opinion(OUTCOMES[outcome], thousandths / 1000)
