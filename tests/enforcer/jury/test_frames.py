"""What daemon and member say to each other: bounded, and without a word of the member's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.jury import frames
from escrow.jury import OUTCOMES, Opinion
from escrow.jury_evidence import Mark


def test_a_question_comes_over_as_it_was() -> None:
    marks = (Mark("/a~1b\ud800", (1, 2), ("base64", "html")), Mark("", (0, 0), ()))
    whole = frames.question(7, marks, b"raw")
    number, table, raw = frames.QUESTION.unpack(whole[: frames.QUESTION.size])
    rest = whole[frames.QUESTION.size :]
    assert (number, frames.marks(rest[:table]), rest[table:], raw) == (7, marks, b"raw", 3)


@pytest.mark.parametrize("table", [b"", b"{", b"[1]", b"[[]]", b'[["/a","x",2,[]]]', b'[["/a",1,2]]', b"null", b"[" * 100_000])
def test_marks_that_are_none_are_garbled(table: bytes) -> None:
    with pytest.raises(frames.Garbled):
        frames.marks(table)


@given(st.sampled_from(OUTCOMES), st.integers(0, 1000), st.integers(0, 2**32 - 1))
def test_an_answer_comes_over_as_it_was(rule: str, thousandths: int, number: int) -> None:
    opinion = Opinion(rule, thousandths / 1000)
    assert frames.read_answer(frames.answer(number, opinion)) == (number, opinion)


@given(st.binary(min_size=frames.ANSWER.size, max_size=frames.ANSWER.size))
def test_any_bytes_are_an_outcome_or_garbled(raw: bytes) -> None:
    try:
        _, opinion = frames.read_answer(raw)
    except frames.Garbled:
        return
    assert opinion.rule in OUTCOMES and 0 <= opinion.score <= 1
