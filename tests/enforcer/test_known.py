"""What was said once of a message is said again of the same one, and of no other."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.custody import Said
from enforcer.known import MOST, MOST_BYTES, Known, key_of
from escrow import jsonrpc
from escrow.leaves import leaves
from escrow.verdict import Finding, Verdict


def response(text: str, number: object = 1, before: str = "") -> jsonrpc.Message:
    shown = f'"{number}"' if isinstance(number, str) else number
    return jsonrpc.read(f'{{"jsonrpc":"2.0",{before}"id":{shown},"result":{{"text":"{text}"}}}}'.encode())


def test_the_same_message_under_another_id_is_the_same() -> None:
    assert key_of(response("a", 1)) == key_of(response("a", 77)) is not None


@pytest.mark.parametrize(
    "one, other",
    [
        (response("a", 1), response("b", 1)),
        (response("a", 1), response("a", 1, '"x":1,')),
        (response("id:1", 1), response("id:2", 2)),
        (response("5", 5), response("6 ", 6)),
    ],
)
def test_another_message_is_another(one: jsonrpc.Message, other: jsonrpc.Message) -> None:
    assert key_of(one) != key_of(other)


def test_an_id_that_is_text_and_a_large_message_are_not_remembered() -> None:
    assert key_of(response("a", "one")) is None and key_of(response("x" * MOST_BYTES)) is None


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.from_regex(r"-?[0-9]{1,3}", fullmatch=True),
    lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(max_size=3), of, max_size=3),
    max_leaves=6,
)


def message_of(value: object, spaced: bool) -> jsonrpc.Message:
    return jsonrpc.read(json.dumps({"jsonrpc": "2.0", "id": 1, "result": value}, separators=None if spaced else (",", ":")).encode())


@settings(max_examples=300, deadline=None)
@given(VALUES, VALUES, st.booleans())
def test_messages_with_the_same_key_have_the_same_texts(one: object, other: object, spaced: bool) -> None:
    first, second = message_of(one, spaced), message_of(other, spaced)
    if key_of(first) == key_of(second):
        assert leaves(jsonrpc.parse(first.raw)) == leaves(jsonrpc.parse(second.raw))


def _numbered(value: object, number: float) -> object:
    """The value with all its numbers made this one."""
    if isinstance(value, dict):
        return {key: _numbered(child, number) for key, child in value.items()}
    if isinstance(value, list):
        return [_numbered(child, number) for child in value]
    return number if isinstance(value, int | float) and not isinstance(value, bool) else value


@settings(max_examples=300, deadline=None)
@given(VALUES, st.booleans())
def test_whole_numbers_alone_make_no_other_message(value: object, spaced: bool) -> None:
    one, other = message_of(_numbered(value, 7), spaced), message_of(_numbered(value, -125), spaced)
    assert key_of(one) == key_of(other) is not None
    assert leaves(jsonrpc.parse(one.raw)) == leaves(jsonrpc.parse(other.raw))


def test_it_is_bounded_and_can_be_emptied() -> None:
    known, said = Known(), Said(Verdict("scanner", Finding.CLEAN, 0.0))
    for number in range(MOST + 1):
        known.put(b"%d" % number, said)
    assert known.get(b"0") is None and known.get(b"1") is said and known.get(None) is None
    known.clear()
    assert known.get(b"1") is None
