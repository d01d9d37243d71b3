"""A policy as text again, and changes to some of its keys."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.policy import Policy, PolicyError, load
from escrow.policy.patch import deep, differing, every, flat, patched, render, said

FULL = """
fail = "open"
passthrough = ["GET /a\\u007f\\"b\\\\", "GET /😀"]
[escrow]
ping_s = 1
[judging]
require = []
[tools]
deny = ["a*", "[b]"]
[jury]
url = "http://127.0.0.1:1/v1"
model = "m"
[tls]
cert = "c"
key = "k"
[principal.bearer]
key_file = "f"
issuer = "i"
audience = "a"
[[rule]]
tools = ["x"]
hold_for_s = 0.5
[[rule]]
servers = ["y"]
trial = true
on_hostile = "pass"
on_unsure = "pass"
require = ["scanner"]
"""


@pytest.mark.parametrize("text", ["", FULL, "[judging]\nrequire = []", "[[rule]]\ntools = ['a']", "passthrough = []"])
def test_a_policy_as_text_loads_to_the_same_version(text: str) -> None:
    policy = load(text)
    assert load(render(deep(said(policy)))) == policy and load(render(deep(said(policy)))).version == policy.version
    assert load(render(deep(every(policy)))).version == policy.version


def test_only_what_is_not_default_is_said() -> None:
    assert said(Policy()) == {} and render({}) == ""
    assert said(load("[escrow]\nping_s = 15.0\nclaim_after_s = 3")) == {"escrow.claim_after_s": 3.0}
    assert set(every(Policy())) >= {"escrow.ping_s", "rule", "scanner.workers", "tools.deny", "judging.taint"}


scalars = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text())


@given(st.dictionaries(st.text(min_size=1, max_size=6), scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(min_size=1), scalars, min_size=1)))
def test_any_document_of_values_and_tables_is_written_so_that_it_reads_the_same(document: dict[str, Any]) -> None:
    assert tomllib.loads(render(document)) == document


def test_changes_are_made_key_by_key() -> None:
    document = {"a": 1, "t.b": 2, "t.c": 3, "rule": [{"tools": ["x"]}]}
    assert patched(document, {"t.b": 5, "a": None}) == {"t.b": 5, "t.c": 3, "rule": [{"tools": ["x"]}]}
    assert patched(document, {"t": {"d": 1}}) == {"a": 1, "t.d": 1, "rule": [{"tools": ["x"]}]}
    assert patched(document, {"rule": []})["rule"] == [] and document["t.b"] == 2
    assert differing({"a": 1, "b": 2, "c": None}, {"a": 1, "b": 3, "d": 4}) == ["b", "c", "d"]
    assert flat({"a": {"b": {"c": 1}, "d": [1]}}) == {"a.b.c": 1, "a.d": [1]}


@pytest.mark.parametrize("document", [{"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}, {"a.b": 1, "a.b.c": 2}])
def test_a_key_is_a_table_or_a_value(document: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        deep(document)


@pytest.mark.parametrize("value", [None, object(), b"x", {1, 2}])
def test_what_is_no_value_of_a_policy_is_an_error(value: object) -> None:
    with pytest.raises(PolicyError):
        render({"a": value})
