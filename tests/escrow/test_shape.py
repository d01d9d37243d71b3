"""A message known by its shape is read as it would be whole; what differs by more than plain whole numbers is of no known shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from escrow import jsonrpc
from escrow.call import Call, Transport, arguments_digest, call_of, name_of
from escrow.jsonrpc import Message, Notification, Request, Response, read
from escrow.principal import from_address
from escrow.shape import MOST_BYTES, MOST_KEPT_BYTES, MOST_NUMBERS, MOST_SEEN, Shapes, shape_of

ME = from_address("192.0.2.1")
LARGEST = 10**15 - 1
PLAIN = st.integers(-LARGEST, LARGEST) | st.sampled_from([0, 1, -1, LARGEST, -LARGEST])
TEXTS = st.text(max_size=4) | st.from_regex(r'-?[0-9]{1,3}|"\\?|\\|%b|%|1e5|[,:\[{}\]]', fullmatch=True)


class Number(int):
    """Stands in a value where each message has another number."""


def values(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    leaf = st.none() | st.booleans() | TEXTS | numbers
    return st.recursive(leaf, lambda of: st.lists(of, max_size=3) | st.dictionaries(TEXTS | st.just("_meta"), of, max_size=3), max_leaves=8)


VALUES = values(st.builds(Number, PLAIN))


def numbered(value: Any, draw: Any) -> Any:
    """The value with other numbers."""
    if isinstance(value, dict):
        return {key: numbered(child, draw) for key, child in value.items()}
    if isinstance(value, list):
        return [numbered(child, draw) for child in value]
    return draw(PLAIN) if isinstance(value, Number) else value


def messages(of: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    params = st.dictionaries(TEXTS | st.sampled_from(["name", "uri", "arguments", "_meta"]), of, max_size=4)
    some_id = st.builds(Number, PLAIN)
    version, method = st.just("2.0"), st.sampled_from(["tools/call", "resources/read", "x%b1"])
    return st.one_of(
        st.fixed_dictionaries({"jsonrpc": version, "id": some_id, "method": method}, optional={"params": params}),
        st.fixed_dictionaries({"method": method, "jsonrpc": version}, optional={"params": params}),
        st.fixed_dictionaries({"result": of, "id": some_id, "jsonrpc": version}),
        st.fixed_dictionaries({"jsonrpc": version, "id": some_id, "error": of}),
    )


def written(value: Any, spaced: bool, ascii_only: bool) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only, separators=None if spaced else (",", ":")).encode("utf-8", "replace")


def taught(*raws: bytes) -> Shapes:
    """Shapes that have met each of these often enough."""
    shapes = Shapes()
    for raw in raws:
        shapes.learn(read(raw))
        shapes.learn(read(raw))
    return shapes


def call(request: Request) -> Call:
    return call_of(request, server="s", principal=ME, session=None, transport=Transport.STATELESS)


def told(message: Message) -> tuple[object, ...]:
    """All that a message says."""
    if isinstance(message, Response):
        return Response, message.id, type(message.id), message.is_error, message.value, message.raw
    if isinstance(message, Notification):
        return Notification, message.method, message.params, message.raw
    return Request, message.id, type(message.id), message.method, message.params, message.raw, name_of(message), call(message)


@settings(max_examples=400, deadline=None)
@given(messages(VALUES), st.data(), st.booleans(), st.booleans())
def test_a_message_of_a_known_shape_says_what_it_says_read_whole(value: dict[str, Any], data: st.DataObject, spaced: bool, ascii_only: bool) -> None:
    first = written(value, spaced, ascii_only)
    shape = shape_of(read(first))
    assume(shape is not None)
    raw = written(numbered(value, data.draw), spaced, ascii_only)
    message = taught(first).get(raw)
    assert message is not None and message.shape is not None, "whole numbers alone make no other shape"
    assert told(message) == told(read(raw))
    if isinstance(message, Request):
        assert call(message).args_sha256 == arguments_digest(read(raw).params)  # type: ignore[union-attr]


ANY = values(st.builds(Number, PLAIN) | st.integers() | st.floats(allow_nan=False, allow_infinity=False))
NUMBERS = st.sampled_from([*b'0 7 -0 00 01 - 1.0 1e3 -1E+2 0.5 999999999999999 9999999999999999 "1" true 1,1'.split(), b"", b"1 ", b"1" * 5000])


@settings(max_examples=400, deadline=None)
@given(messages(ANY), st.lists(NUMBERS, min_size=1, max_size=3), st.booleans())
def test_whatever_stands_in_a_numbers_place_is_read_as_it_is_read_whole(value: dict[str, Any], numbers: list[bytes], spaced: bool) -> None:
    first = written(numbered(value, lambda _: 7), spaced, True)
    pieces = first.split(b"7")
    raw = b"".join(piece + numbers[at % len(numbers)] for at, piece in enumerate(pieces[:-1])) + pieces[-1]
    known = taught(first).get(raw)
    if known is not None:
        assert told(known) == told(read(raw))


@settings(max_examples=200, deadline=None)
@given(messages(ANY), st.data())
def test_bytes_changed_anywhere_are_read_as_they_are_read_whole(value: dict[str, Any], data: st.DataObject) -> None:
    first = written(value, False, True)
    at, length = data.draw(st.integers(0, len(first) - 1)), data.draw(st.integers(0, 2))
    raw = first[:at] + data.draw(st.sampled_from([b"1", b"-", b'"', b"}", b"{", b",", b".", b"e", b" ", b"\\", b"", b"\xff"])) + first[at + length :]
    known = taught(first).get(raw)
    if known is not None:
        assert told(known) == told(read(raw))


REQUEST = b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":{"name":"t","arguments":{"n":%b}}}'


@pytest.mark.parametrize("number", [b"-0", b"01", b"1.0", b"1.5", b"1e3", b"1" * 16, b'"1"', b"null", b"-", b"", b"1 1", b"0x1", b"\xd9\xa1"])
def test_what_is_no_plain_whole_number_is_of_no_shape(number: bytes) -> None:
    shapes = taught(REQUEST % (b"1", b"2"))
    assert shapes.get(REQUEST % (b"1", b"-999999999999999")) is not None
    assert shapes.get(REQUEST % (b"1", number)) is None and shapes.get(REQUEST % (number, b"2")) is None


@pytest.mark.parametrize(
    "raw",
    [
        b'{"jsonrpc":"2.0","id":1,"result":[1.5]}',
        b'{"jsonrpc":"2.0","id":1,"result":[1e5]}',
        b'{"jsonrpc":"2.0","id":1,"result":[-0]}',
        b'{"jsonrpc":"2.0","id":"1","result":1}',
        b'{"jsonrpc":"2.0","error":1}',
        b'{"jsonrpc":"2.0","id":1,"result":[%b]}' % b",".join([b"1"] * MOST_NUMBERS),
        b'{"jsonrpc":"2.0","id":1,"result":"%b"}' % (b"x" * MOST_BYTES),
        rb'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\ud800"}}',
    ],
)
def test_a_message_that_is_not_plain_has_no_shape(raw: bytes) -> None:
    assert shape_of(read(raw)) is None and taught(raw).get(raw) is None


def test_digits_in_a_text_are_no_numbers() -> None:
    shapes = taught(b'{"jsonrpc":"2.0","id":1,"result":"a1"}')
    assert shapes.get(b'{"jsonrpc":"2.0","id":1,"result":"a2"}') is None
    assert shapes.get(b'{"jsonrpc":"2.0","id":12,"result":"a"}') is None
    assert shapes.get(b'{"jsonrpc":"2.0","id":22,"result":"a1"}') is not None


def test_a_key_that_comes_twice_is_never_known() -> None:
    twice = b'{"jsonrpc":"2.0","id":1,"id":2,"result":"a1"}'
    with pytest.raises(jsonrpc.Unreadable):
        read(twice)
    assert taught(b'{"jsonrpc":"2.0","id":1,"result":"a1"}').get(twice) is None


def test_what_came_once_is_not_known_yet_and_what_came_twice_is() -> None:
    shapes, raw = Shapes(), REQUEST % (b"1", b"2")
    shapes.learn(read(raw))
    assert shapes.get(raw) is None
    shapes.learn(read(REQUEST % (b"3", b"44")))
    assert shapes.get(raw) is not None


def test_what_is_known_is_bounded_by_its_bytes() -> None:
    shapes, count = Shapes(), 2 * MOST_KEPT_BYTES // MOST_BYTES
    texts = [bytes([97 + digit - 48 for digit in b"%06d" % number]) for number in range(count)]
    raws = [b'{"jsonrpc":"2.0","id":1,"result":"%b%b"}' % (text, b"x" * (MOST_BYTES - 100)) for text in texts]
    for raw in raws:
        shapes.learn(read(raw))
        shapes.learn(read(raw))
    known = [shapes.get(raw) is not None for raw in raws]
    assert known[-1] and not known[0] and sum(known) * MOST_BYTES <= MOST_KEPT_BYTES


def test_messages_that_never_come_again_push_out_no_shape() -> None:
    raw = REQUEST % (b"1", b"2")
    shapes = taught(raw)
    for number in range(MOST_SEEN + 10):
        text = bytes([97 + digit - 48 for digit in b"%06d" % number])
        shapes.learn(Response(1, "", False, b'{"jsonrpc":"2.0","id":1,"result":"%b"}' % text))
    assert shapes.get(raw) is not None
