"""What makes two calls the same call."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from escrow.call import Call, Kind, Transport, arguments_digest, call_of, name_of
from escrow.jsonrpc import Request, read
from escrow.principal import from_address, from_authorization, from_process, from_subject

ME = from_address("192.0.2.1")
PARAMS = st.dictionaries(st.text(max_size=6), st.recursive(st.integers() | st.text() | st.floats(allow_nan=False), st.lists, max_leaves=5), max_size=4)


def call(method: str, params: dict[str, Any], **changes: Any) -> Call:
    request = read(json.dumps({"jsonrpc": "2.0", "id": changes.pop("id", 1), "method": method, "params": params}).encode())
    assert isinstance(request, Request)
    return call_of(request, **{"server": "s", "principal": ME, "session": None, "transport": Transport.SESSION, **changes})


@given(PARAMS)
def test_the_digest_does_not_depend_on_the_order_of_keys(params: dict[str, Any]) -> None:
    assert arguments_digest(params) == arguments_digest(dict(reversed(params.items())))


ASCII = st.text(st.characters(max_codepoint=127), max_size=6)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6) | ASCII


@given(st.dictionaries(ASCII | st.text(max_size=3), st.recursive(VALUES, lambda of: st.lists(of) | st.dictionaries(ASCII, of), max_leaves=8)))
def test_the_digest_is_that_of_rfc_8785_whoever_encodes_it(params: dict[str, Any]) -> None:
    params.pop("_meta", None)
    try:
        expected = hashlib.sha256(rfc8785.dumps(params)).hexdigest()
    except (rfc8785.CanonicalizationError, UnicodeError):
        return
    assert arguments_digest(params) == expected


@given(PARAMS, st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))
def test_the_digest_does_not_depend_on_meta(params: dict[str, Any], meta: dict[str, int]) -> None:
    bare = {key: value for key, value in params.items() if key != "_meta"}
    assert arguments_digest({**bare, "_meta": meta}) == arguments_digest(bare)


@given(PARAMS, PARAMS)
def test_different_arguments_have_different_digests(one: dict[str, Any], other: dict[str, Any]) -> None:
    one.pop("_meta", None)
    other.pop("_meta", None)
    if one != other:
        assert arguments_digest(one) != arguments_digest(other)


def test_meta_inside_the_arguments_counts() -> None:
    assert arguments_digest({"arguments": {"_meta": 1}}) != arguments_digest({"arguments": {}})


@pytest.mark.parametrize("value", [2**60, -(2**53) - 1, "\ud800", {"\udfff": 1}])
def test_arguments_without_a_canonical_form_equal_only_themselves(value: Any) -> None:
    assert arguments_digest({"a": value}) == arguments_digest({"a": value}) != arguments_digest({"a": repr(value)})


def test_a_number_is_not_its_text_and_true_is_not_one() -> None:
    digests = {arguments_digest({"a": value}) for value in (1, "1", True, None, [1], {"1": 1})}
    assert len(digests) == 6


def test_id_and_session_are_no_part_of_a_calls_identity() -> None:
    first, again = call("tools/call", {"name": "t"}, id=0, session="s-1"), call("tools/call", {"name": "t"}, id="0", session="s-2")
    assert first.identity == again.identity


@pytest.mark.parametrize("changes", [{"principal": from_address("192.0.2.2")}, {"server": "other"}, {"params": {"name": "u"}}, {"method": "prompts/get"}])
def test_server_principal_method_name_and_arguments_are(changes: dict[str, Any]) -> None:
    method, params = changes.pop("method", "tools/call"), changes.pop("params", {"name": "t"})
    assert call(method, params, **changes).identity != call("tools/call", {"name": "t"}).identity


@pytest.mark.parametrize(
    "method, params, kind, name",
    [
        ("tools/call", {"name": "read"}, Kind.TOOL_CALL, "read"),
        ("tools/call", {"name": 7}, Kind.TOOL_CALL, "tools/call"),
        ("resources/read", {"uri": "file:///x"}, Kind.RESOURCE, "file:///x"),
        ("prompts/get", {"name": "p"}, Kind.PROMPT, "p"),
        ("tools/list", {}, Kind.LIST, "tools/list"),
        ("resources/templates/list", {}, Kind.LIST, "resources/templates/list"),
        ("server/discover", {}, Kind.DISCOVER, "server/discover"),
        ("initialize", {}, Kind.INITIALIZE, "initialize"),
        ("completion/complete", {}, Kind.OTHER, "completion/complete"),
    ],
)
def test_kind_and_name_come_from_the_method(method: str, params: dict[str, Any], kind: Kind, name: str) -> None:
    made = call(method, params)
    assert (made.kind, made.name) == (kind, name)
    assert name_of(read(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())) == name  # type: ignore[arg-type]


def test_a_principal_shows_its_kind_and_no_secret() -> None:
    shown = [str(from_authorization(b"Bearer hunter2")), str(from_subject("iss", "alice")), str(from_process(1000, 7)), str(from_address("::1"))]
    assert [one.partition(":")[0] for one in shown] == ["auth", "sub", "local", "address"]
    assert not any("hunter2" in one or "alice" in one for one in shown)
    assert [from_address("::1").weak, from_process(0, None).weak] == [True, False]


def test_issuer_and_subject_cannot_be_shifted_into_each_other() -> None:
    assert from_subject("ab", "c") != from_subject("a", "bc")
