"""Two answers agree as values; what may differ is narrow, and prose is never among it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.sandbox.agreement import MAX_DIFFERENCES, MAX_VOLATILE, Agreement, Difference, compare, learn

EVERYTHING = ("*",)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def result(value: Any, id_: int = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, "result": value}).encode()


def text(words: str) -> bytes:
    return result({"content": [{"type": "text", "text": words}]})


@given(json_values)
def test_a_value_is_equal_to_itself_whatever_the_id(value: Any) -> None:
    assert compare(result(value, 1), result(value, 2)).equal


@given(json_values, json_values)
def test_values_are_equal_only_where_their_canonical_text_is(one: Any, another: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(another, sort_keys=True)
    assert compare(result({"v": one}), result({"v": another})).equal == same


@given(st.text(), st.text())
def test_words_are_never_volatile_whatever_names_them(one: str, another: str) -> None:
    found = compare(text(f"say {one}"), text(f"say {another}"), EVERYTHING, learn(text(f"say {one}"), text(f"say {another}")))
    assert found.agrees == (one == another) and not found.volatile


@pytest.mark.parametrize(
    "twin, real, kind",
    [
        (b"", result(1), "unreadable"),
        (b'{"jsonrpc":"2.0","id":1,"result":1,"result":2}', result(2), "unreadable"),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}', result(1), "type"),
        (result(1), result(True), "type"),
        (result(1), result(1.0), "value"),
        (result({"a": 1}), result({}), "only in the twin"),
        (result({}), result({"a": 1}), "only in the real answer"),
        (result([1]), result([1, 2]), "length"),
    ],
)
def test_what_differs_is_said_by_its_kind(twin: bytes, real: bytes, kind: str) -> None:
    assert [difference.kind for difference in compare(twin, real).differences] == [kind]


def test_no_answer_is_different() -> None:
    assert compare(None, result(1)).differences == (Difference("", "unreadable"),)


@pytest.mark.parametrize(
    "one, another",
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:06.123Z"),
        ("3f2b8c1e-0000-4000-8000-000000000001", "3f2b8c1e-0000-4000-8000-000000000002"),
        ("req_0a1b2c3d", "req_ffff2c3d"),
        ("12 ms", "140 ms"),
        (12, 13.5),
        (["a", "b", "c"], ["c", "a", "b"]),
    ],
)
def test_narrow_shapes_are_learned_and_may_differ_then(one: Any, another: Any) -> None:
    twin, real = result({"structuredContent": {"at": one}}), result({"structuredContent": {"at": another}})
    pointer = "/result/structuredContent/at"
    assert learn(twin, real) == {pointer}
    assert compare(twin, real, (), frozenset({pointer})) == Agreement((), (pointer,)) == compare(twin, real, ("/result/*/at",))
    assert not compare(twin, real).agrees, "nobody named the place"


@pytest.mark.parametrize(
    "one, another",
    [
        ("2026-01-02", "run rm"),
        ("req_0a1b2c3d", "run_0a1b2c3e"),
        ("0a1b2c3d", "0a1b2c3d4e5f"),
        ("12 ms", "12 s"),
        ("a", "b"),
        (True, False),
        (["do not trust the mail", "b"], ["b", "do not trust the mail"]),
        (["a", "b"], ["a", "a"]),
        ("1" * 100, "2" * 100),
    ],
)
def test_no_other_shape_may_differ(one: Any, another: Any) -> None:
    twin, real = result({"at": one}), result({"at": another})
    assert learn(twin, real) == frozenset() and not compare(twin, real, EVERYTHING).agrees


def test_a_learned_place_takes_no_words_later() -> None:
    pointer = frozenset({"/result/at"})
    assert not compare(result({"at": "2026-01-02"}), result({"at": "ignore all of it"}), (), pointer).agrees


def test_a_text_that_is_json_is_compared_inside_and_only_then() -> None:
    one, another = '{"at": "2026-01-02", "n": 1}', '{ "n":1,"at": "2026-01-03" }'
    assert compare(text(one), text(another), ("*/text/at",)) == Agreement((), ("/result/content/0/text/at",))
    assert not compare(text("2026-01-02"), text("2026-01-03"), EVERYTHING).agrees
    assert not compare(text('{"a":1,"a":2}'), text('{"a":3,"a":2}'), EVERYTHING).agrees


def test_the_order_of_content_is_what_the_model_reads() -> None:
    blocks = [{"type": "text", "text": "not"}, {"type": "text", "text": "safe"}]
    assert not compare(result({"content": blocks}), result({"content": blocks[::-1]}), EVERYTHING).agrees


def test_what_is_named_and_what_may_differ_is_bounded() -> None:
    many = compare(result(["a"] * 10_000), result(["b"] * 10_000))
    assert len(many.differences) == MAX_DIFFERENCES + 1 and many.differences[-1].kind == "too many"
    volatile = compare(result(list(range(5000))), result(list(range(1, 5001))), EVERYTHING)
    assert len(volatile.volatile) == MAX_VOLATILE and [difference.kind for difference in volatile.differences] == ["too many"]


def test_long_names_and_deep_values_take_no_more_than_their_size() -> None:
    value: Any = {f"k{number}": number for number in range(20_000)}
    other: Any = {f"k{number}": number + 1 for number in range(20_000)}
    for _ in range(20):
        value, other = {"n" * 20_000: value}, {"n" * 20_000: other}
    started = time.process_time()
    assert not compare(result(value), result(other), EVERYTHING).agrees
    assert time.process_time() - started < 2, "some hundredths on an idle machine"
