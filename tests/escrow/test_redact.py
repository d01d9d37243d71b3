"""Redaction takes every copy, and gives back a message."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow import jsonrpc
from escrow.redact import MARK, NothingToRedact, redact

SECRET = "the launch code is 0451-swordfish"


def message(result: Any, **more: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result, **more}).encode()


def redacted(result: Any, what: str) -> Any:
    raw = redact(message(result), what)
    read = jsonrpc.read(raw)
    assert isinstance(read, jsonrpc.Response) and read.id == 1
    return read.value


def test_every_copy_goes_from_text_and_structured_content_and_keys() -> None:
    result = {
        "content": [{"type": "text", "text": f"Hello. {SECRET}. Bye."}, {"type": "text", "text": json.dumps({"note": SECRET})}],
        "structuredContent": {"note": SECRET, "list": [{"deep": f"x{SECRET}y"}], SECRET: 1},
    }
    for what in ("0451-[a-z]+", "/result/structuredContent/note"):
        left = json.dumps(redacted(result, what))
        assert "swordfish" not in left and MARK in left and "Bye." in left


@pytest.mark.parametrize(
    "encoded",
    [
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(f"~~ {SECRET} ~~".encode()).decode(),
        SECRET.encode().hex(),
        base64.b64encode(base64.b64encode(SECRET.encode())).decode(),
        "".join(f"%{byte:02x}" for byte in SECRET.encode()),
        "".join(f"&#{ord(char)};" for char in SECRET),
        "".join(f"\\u{ord(char):04x}" for char in SECRET),
        "\u200b".join(SECRET),
        json.dumps({"a": SECRET}),
        f"<p>{SECRET.replace(' ', ' <b></b>')}</p>",
    ],
)
def test_a_leaf_that_hides_a_copy_goes_whole(encoded: str) -> None:
    assert redacted({"content": [{"type": "text", "text": f"{SECRET}"}], "structuredContent": {"blob": encoded}}, SECRET)["structuredContent"] in (
        {"blob": MARK},
        {"blob": json.dumps({"a": MARK})},
        {"blob": f"<p>{MARK}</p>"},
    )


def test_a_number_that_carries_what_is_named_goes_too() -> None:
    left = redacted({"content": [{"type": "text", "text": "pin 918273"}], "structuredContent": {"pin": 918273, "n": 1.5, "b": True}}, "918273")
    assert "918273" not in json.dumps(left) and left["structuredContent"] == {"pin": MARK, "n": 1.5, "b": True}


@pytest.mark.parametrize("what", ["2", "jsonrpc|2.0|result|1|content|text|type"])
def test_the_envelope_stays(what: str) -> None:
    value = json.loads(redact(message({"content": [{"type": "text", "text": "2 results of 1 text"}]}), what))
    assert value["jsonrpc"] == "2.0" and value["id"] == 1 and "text" in value["result"]["content"][0]


def test_an_error_keeps_its_code() -> None:
    raw = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"32000 secrets"}}'
    assert json.loads(redact(raw, "32000"))["error"] == {"code": -32000, "message": f"{MARK} secrets"}


@pytest.mark.parametrize(
    "what", ["/result/nothing", "/result/content/9/text", "/result/content/x", "/result/content", "/id", "/", "not there", "(", "/result/content/0/text/0"]
)
def test_what_names_nothing_is_said_so(what: str) -> None:
    with pytest.raises(NothingToRedact):
        redact(message({"content": [{"type": "text", "text": "plain"}]}), what)


def test_pointers_are_unescaped() -> None:
    assert redacted({"a/b": {"m~n": "word"}}, "/result/a~1b/m~0n") == {"a/b": {"m~n": MARK}}


def test_a_message_with_lone_surrogates_is_still_a_message_afterwards() -> None:
    raw = rb'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"\ud800 secret"},{"type":"text","text":"x\udc00"}]}}'
    read = jsonrpc.read(redact(raw, "secret"))
    assert isinstance(read, jsonrpc.Response) and "secret" not in json.dumps(read.value)


LEAVES = st.text(max_size=10) | st.integers()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner), max_leaves=8))
def test_nothing_named_is_left_in_any_place(value: Any) -> None:
    planted = {"content": [value, SECRET, {"k": [value, f"{value}{SECRET}"]}]}
    assert "swordfish" not in json.dumps(redacted(planted, "swordfish"))
