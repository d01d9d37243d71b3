"""What was said once of a message is said again of the same one, and of no other."""

from __future__ import annotations

import pytest

from enforcer.custody import Said
from enforcer.known import MOST, MOST_BYTES, Known, key_of
from escrow import jsonrpc
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


def test_an_id_that_is_text_a_large_message_and_a_spaced_one_are_not_remembered() -> None:
    assert key_of(response("a", "one")) is None and key_of(response("x" * MOST_BYTES)) is None
    assert key_of(jsonrpc.read(b'{"jsonrpc":"2.0","id" : 1,"result":{}}')) is None
    assert key_of(jsonrpc.read(b'{"jsonrpc":"2.0","id":1 ,"result":{}}')) is None


def test_it_is_bounded_and_can_be_emptied() -> None:
    known, said = Known(), Said(Verdict("scanner", Finding.CLEAN, 0.0))
    for number in range(MOST + 1):
        known.put(b"%d" % number, said)
    assert known.get(b"0") is None and known.get(b"1") is said and known.get(None) is None
    known.clear()
    assert known.get(b"1") is None
