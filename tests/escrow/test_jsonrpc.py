"""One strict reading of JSON-RPC: what any two peers could read apart is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.jsonrpc import MAX_DEPTH, Notification, NotJson, Request, Response, Unreadable, is_message, members, parse, read, with_id

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_what_is_read_is_what_json_says(value: Any, ascii_only: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass" if ascii_only else "replace")) is not NotImplemented
    if ascii_only:
        assert parse(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_unreadable(raw: bytes) -> None:
    try:
        read(raw)
    except Unreadable as error:
        assert str(error).isascii()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{},"result":{"a":1}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":{"text":"x","text":"y"}}}',
        rb'{"jsonrpc":"2.0","id":1,"result":{"text":"x","t\u0065xt":"y"}}',
        b'{"jsonrpc":"2.0","id":1,"id":2,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":[{"":0,"":1}]}',
    ],
)
def test_an_object_that_names_a_key_twice_is_unreadable_and_never_mere_text(raw: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        read(raw)
    assert not isinstance(caught.value, NotJson)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1" * 5000])
def test_numbers_that_some_parsers_take_and_others_do_not_are_unreadable_and_never_mere_text(number: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        read(b'{"jsonrpc":"2.0","id":1,"result":{"n":' + number + b"}}")
    assert not isinstance(caught.value, NotJson), "a passthrough path would let it by unjudged"


@pytest.mark.parametrize("open_, shut", [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_is_bounded_to_the_level(open_: bytes, shut: bytes) -> None:
    parse(open_ * MAX_DEPTH + b"0" + shut * MAX_DEPTH)
    with pytest.raises(Unreadable, match="nested deeper"):
        parse(open_ * (MAX_DEPTH + 1) + b"0" + shut * (MAX_DEPTH + 1))
    with pytest.raises(Unreadable):
        parse(open_ * 200_000)


@given(st.integers(0, 140), st.text('[]{}"\\ab', max_size=40))
def test_depth_is_counted_outside_strings_only(depth: int, text: str) -> None:
    raw = b"[" * depth + json.dumps(text + "[" * 300).encode() + b"]" * depth
    if depth <= MAX_DEPTH:
        parse(raw)
    else:
        with pytest.raises(Unreadable):
            parse(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"Accepted", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"{'a':1}", b"[1,]", b"{}{}", b'"\x00"', b'{"a":"\xed\xa0\x80"}', b"01"]
)
def test_what_is_no_json_is_named_so(raw: bytes) -> None:
    with pytest.raises(NotJson):
        parse(raw)


def test_lone_surrogates_are_read_and_kept() -> None:
    assert parse(rb'["\ud800"]') == ["\ud800"]


@pytest.mark.parametrize("given_id, typed", [(b"0", 0), (b'"0"', "0"), (b"-1", -1), (b'""', ""), (b"9007199254740993", 9007199254740993)])
def test_ids_are_integers_or_strings(given_id: bytes, typed: int | str) -> None:
    message = read(b'{"jsonrpc":"2.0","id":' + given_id + b',"method":"ping"}')
    assert isinstance(message, Request) and message.id == typed and type(message.id) is type(typed)


@pytest.mark.parametrize("bad", [b"true", b"false", b"1.0", b"1e0", b"[]", b"{}", b"null"])
def test_anything_else_is_no_id(bad: bytes) -> None:
    for rest in (b'"method":"ping"', b'"result":{}'):
        with pytest.raises(Unreadable):
            read(b'{"jsonrpc":"2.0","id":' + bad + b"," + rest + b"}")


def test_an_error_may_have_no_id() -> None:
    for raw in (b'{"jsonrpc":"2.0","id":null,"error":{}}', b'{"jsonrpc":"2.0","error":{}}'):
        message = read(raw)
        assert isinstance(message, Response) and message.id is None and message.is_error


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b'[{"jsonrpc":"2.0","id":1,"result":{}}]',
        b'{"jsonrpc":"1.0","id":1,"result":{}}',
        b'{"id":1,"result":{}}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
        b'{"jsonrpc":"2.0","id":1,"method":"x","result":{}}',
        b'{"jsonrpc":"2.0","id":1,"method":7}',
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":[1]}',
        b'{"jsonrpc":"2.0","result":{}}',
        b"7",
    ],
)
def test_what_is_no_single_message_is_unreadable(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        read(raw)


def test_a_notification_has_a_method_and_no_id() -> None:
    assert isinstance(read(b'{"method":"notifications/x","jsonrpc":"2.0"}'), Notification)


@pytest.mark.parametrize(
    "value, judged",
    [
        ({"jsonrpc": "2.0"}, True),
        ({"jsonrpc": "1.0", "id": 1, "result": 2}, True),
        ({"id": 1, "result": {}}, True),
        ({"id": None, "error": {}}, True),
        ({"method": "x"}, True),
        ([1, {"jsonrpc": "2.0"}], True),
        ([[{"id": 1, "result": 0}]], True),
        ({"result": 1}, False),
        ({"status": "ok"}, False),
        ("jsonrpc", False),
        (None, False),
    ],
)
def test_whatever_pretends_to_be_json_rpc_is_judged(value: Any, judged: bool) -> None:
    assert is_message(value) is judged


def test_members_gives_where_each_value_stands_in_bytes() -> None:
    raw = ' { "ключ" : "ы" , "a\\u0062":[1, {"x":"}"}],\t"id" :"\\u0031" }\n'.encode()
    spans = members(raw)
    assert {key: raw[span] for key, span in spans.items()} == {"ключ": '"ы"'.encode(), "ab": b'[1, {"x":"}"}]', "id": rb'"\u0031"'}
    assert members(b" {} ") == {}


@given(st.dictionaries(st.text(max_size=6).filter(lambda key: key != "id"), JSON, max_size=4), st.integers() | st.text(), st.integers(0, 4), st.booleans())
def test_with_id_keeps_every_other_byte(fields: dict[str, Any], new_id: int | str, place: int, ascii_only: bool) -> None:
    order = [*fields.items()]
    order.insert(place, ("id", "old"))
    raw = json.dumps(dict(order), ensure_ascii=ascii_only, indent=1).encode("utf-8", "replace")
    try:
        parse(raw)
    except Unreadable:
        return  # replacing lone surrogates may have made two keys one
    changed = with_id(raw, new_id)
    spans = members(raw)
    assert changed == raw[: spans["id"].start] + json.dumps(new_id).encode() + raw[spans["id"].stop :]
    assert parse(changed) == {**parse(raw), "id": new_id}


def test_with_id_gives_an_id_to_an_error_that_had_none() -> None:
    raw = b' {"jsonrpc":"2.0","error":{"code":1,"message":"m"}}'
    assert parse(with_id(raw, "x")) == {**parse(raw), "id": "x"}


def test_nesting_of_many_small_arrays_is_read_in_linear_time() -> None:
    assert len(parse(b"[" + b"[0,0,0]," * 200_000 + b"0]")) == 200_001
