"""The language between daemon and keeper: what is said comes back as it was, within every bound, and nothing else is taken."""

from __future__ import annotations

import json
import string
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.sandbox import frames
from enforcer.sandbox.frames import ANSWER, MAX_BODY_BYTES, MAX_EACH, MAX_HEAD_BYTES, MAX_RAW_BYTES, MAX_TEXT, QUESTION, Asked, Garbled, Kind, Phase
from escrow.sandbox.effects import Change, Connect, Effects, Execute, Write
from escrow.sandbox.run import Run

numbers = st.integers(0, 0xFFFFFFFF)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
effects = st.builds(
    Effects,
    st.lists(texts, max_size=4).map(tuple),
    st.lists(st.builds(Write, texts, st.sampled_from(Change), st.none() | st.integers(0, 0o177777)), max_size=4).map(tuple),
    st.lists(st.builds(Connect, texts, st.none() | st.integers(0, 65535), texts, st.booleans()), max_size=4).map(tuple),
    st.lists(st.builds(Execute, texts, st.lists(texts, max_size=4).map(tuple)), max_size=4).map(tuple),
    st.lists(texts, max_size=4).map(tuple),
)
milliseconds = st.floats(0, 1e9, allow_nan=False)
answered = st.builds(Run, st.just("answered"), effects, st.binary(max_size=200), st.booleans(), texts, milliseconds, milliseconds, st.booleans())
others = st.builds(Run, st.sampled_from(["late", "failed", "absent"]), effects, st.none(), st.booleans(), texts, milliseconds)


def read_back(whole: bytes) -> tuple[int, Run]:
    number, kind, body_bytes, answer_bytes = frames.read_answer(whole[: ANSWER.size])
    assert kind is Kind.RUN and len(whole) == ANSWER.size + body_bytes + answer_bytes
    body, answer = whole[ANSWER.size :][:body_bytes], whole[ANSWER.size + body_bytes :]
    return number, frames.read_run(body, answer)


@given(numbers, st.builds(Asked, texts, texts | st.integers(-(2**53), 2**53), texts, st.booleans()), st.binary(max_size=500))
def test_a_question_comes_back_as_it_was(number: int, asked: Asked, raw: bytes) -> None:
    whole = frames.question(number, Phase.FREEZE, asked, raw)
    assert frames.read_question(whole[: QUESTION.size])[:2] == (number, Phase.FREEZE)
    _, _, head_bytes, raw_bytes = frames.read_question(whole[: QUESTION.size])
    assert frames.read_asked(whole[QUESTION.size :][:head_bytes]) == asked
    assert whole[QUESTION.size + head_bytes :] == raw and raw_bytes == len(raw)


@given(numbers, answered | others)
def test_a_run_comes_back_as_it_was(number: int, run: Run) -> None:
    assert read_back(frames.ran(number, run)) == (number, run)


def test_an_empty_answer_is_not_no_answer() -> None:
    assert read_back(frames.ran(1, Run("answered", answer=b"")))[1].answer == b""


def test_state_that_is_frozen_is_said_in_one_head() -> None:
    assert frames.read_answer(frames.frozen(7)) == (7, Kind.FROZEN, 0, 0)


def test_what_there_is_comes_back_and_what_is_too_much_as_nothing() -> None:
    whole = frames.shown(3, {"servers": [{"why": "\N{SNOWMAN}"}]})
    assert frames.read_shown(whole[ANSWER.size :]) == {"servers": [{"why": "\N{SNOWMAN}"}]}
    assert frames.read_shown(frames.shown(3, {"servers": "x" * MAX_BODY_BYTES})[ANSWER.size :]) == {}


@given(st.binary(min_size=QUESTION.size, max_size=QUESTION.size))
def test_any_head_is_read_within_the_bounds_or_refused(head: bytes) -> None:
    for read, longest in ((frames.read_question, MAX_HEAD_BYTES), (frames.read_answer, MAX_BODY_BYTES)):
        try:
            _, _, short, long = read(head)
        except Garbled:
            continue
        assert short <= longest and long <= MAX_RAW_BYTES


@given(st.binary(max_size=300), st.binary(max_size=20))
def test_any_body_is_a_value_or_refused(body: bytes, answer: bytes) -> None:
    for read in (frames.read_asked, frames.read_shown, lambda body: frames.read_run(body, answer)):
        with suppress(Garbled):
            read(body)


@pytest.mark.parametrize(
    "head",
    [
        QUESTION.pack(1, 0, 0, 0),
        QUESTION.pack(1, max(Phase) + 1, 0, 0),
        QUESTION.pack(1, Phase.FREEZE, MAX_HEAD_BYTES + 1, 0),
        QUESTION.pack(1, Phase.FREEZE, 0, MAX_RAW_BYTES + 1),
    ],
    ids=["no phase", "another phase", "a long head", "a long call"],
)
def test_a_question_that_no_honest_daemon_asks_is_garbled(head: bytes) -> None:
    with pytest.raises(Garbled):
        frames.read_question(head)


@pytest.mark.parametrize(
    "head",
    [
        ANSWER.pack(1, 0, 0, 0),
        ANSWER.pack(1, max(Kind) + 1, 0, 0),
        ANSWER.pack(1, Kind.RUN, MAX_BODY_BYTES + 1, 0),
        ANSWER.pack(1, Kind.RUN, 0, MAX_RAW_BYTES + 1),
    ],
    ids=["no kind", "another kind", "a long body", "a long answer"],
)
def test_an_answer_that_no_honest_keeper_gives_is_garbled(head: bytes) -> None:
    with pytest.raises(Garbled):
        frames.read_answer(head)


def test_a_call_or_a_head_that_passes_the_bound_is_not_asked() -> None:
    with pytest.raises(Garbled):
        frames.question(1, Phase.FREEZE, Asked("s"), bytes(MAX_RAW_BYTES + 1))
    with pytest.raises(Garbled):
        frames.question(1, Phase.FREEZE, Asked("s" * MAX_HEAD_BYTES))


def body(**changes: object) -> bytes:
    return json.dumps({"outcome": "answered", "answer": "", **changes}).encode()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (body(outcome="late"), b""),
        (body(answer=None), b""),
        (body(outcome="late", answer=None), b"{}"),
        (body(outcome="agreed"), b"{}"),
        (body(why="x" * (MAX_TEXT + 1)), b"{}"),
        (body(learned=["x" * (MAX_TEXT + 1)]), b"{}"),
        (body(effects={"reads": ["x"] * (MAX_EACH + 1)}), b"{}"),
        (body(effects={"reads": ["x" * (MAX_TEXT + 1)]}), b"{}"),
        (b"[" * 100_000, b"{}"),
    ],
    ids=["late with an answer", "answered without one", "bytes without an answer", "no outcome", "a long reason", "a long place", "effects without end",
         "a long path", "depth"],
)  # fmt: skip
def test_a_run_that_no_honest_keeper_tells_is_garbled(said: bytes, answer: bytes) -> None:
    with pytest.raises(Garbled):
        frames.read_run(said, answer)


def test_effects_past_the_bound_are_cut_and_the_run_is_incomplete() -> None:
    run = Run("answered", Effects(reads=tuple(f"/{number}" for number in range(MAX_EACH + 1))), b"{}")
    told = read_back(frames.ran(1, run))[1].effects
    assert len(told.reads) == MAX_EACH and told.incomplete == ("more, or longer, than can be told",)


@pytest.mark.parametrize("letter", [string.ascii_letters[0], "\N{SNOWMAN}", "\x01"])
def test_a_run_whose_effects_fit_one_by_one_and_not_together_is_incomplete(letter: str) -> None:
    run = Run("answered", Effects(reads=tuple(f"{number}{letter * 900}" for number in range(MAX_EACH)),
                                  executes=tuple(Execute(letter * MAX_TEXT, (letter * MAX_TEXT,) * 64) for _ in range(MAX_EACH))), b"{}")  # fmt: skip
    told = read_back(frames.ran(1, run))[1]
    assert told.effects == Effects(incomplete=("it did more than can be told",)) and told.answer == b"{}"


def test_an_answer_past_the_bound_is_a_run_that_failed() -> None:
    told = read_back(frames.ran(1, Run("answered", answer=bytes(MAX_RAW_BYTES + 1))))[1]
    assert told == Run("failed", why="its answer is larger than the bound")


@given(effects)
def test_effects_within_the_bounds_are_left_as_they_are(some: Effects) -> None:
    assert frames.bounded(some) == some and frames.bounded(replace(some, incomplete=())).complete
