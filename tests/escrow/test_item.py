"""The contract's JSON shape of an escrow item."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from escrow.call import Kind, Transport
from escrow.item import Item, Payload, State
from escrow.verdict import Finding, Reason, Verdict

ITEM = Item(
    id="hf-0123456789", state=State.HELD, kind=Kind.TOOL_CALL, tool="read", method="tools/call", server="s", principal="local:uid=1", session=None,
    transport=Transport.STATELESS, call_id=7, args_sha256="a" * 64, result_sha256="b" * 64, size_bytes=2, policy_version="p", held_at=1.0, deadline=2.0,
    verdicts=(Verdict("scanner", Finding.HOSTILE, 0.98765, (Reason("rule.x", "Because.", "/result/0", (1, 4), ("base64",)),), 1.23456),),
)  # fmt: skip
CONTRACT = {
    "id", "state", "kind", "tool", "server", "principal", "session", "args_sha256", "result_sha256", "policy_version", "held_at", "deadline", "verdicts",
    "decided_by", "reason",
}  # fmt: skip


def test_the_contracts_keys_are_all_there() -> None:
    shown = ITEM.to_json()
    assert shown.keys() >= CONTRACT
    assert shown["verdicts"] == [
        {
            "judge": "scanner",
            "finding": "HOSTILE",
            "score": 0.9877,
            "reasons": [{"rule": "rule.x", "text": "Because.", "pointer": "/result/0", "span": [1, 4], "via": ["base64"]}],
            "took_ms": 1.235,
        }
    ]


def test_it_is_plain_json_in_every_state_and_kind() -> None:
    for state in State:
        for kind in Kind:
            shown = json.loads(json.dumps(replace(ITEM, state=state, kind=kind).to_json()))
            assert (shown["state"], shown["kind"]) == (state.value, kind.value)


def test_the_states_are_those_of_the_contract() -> None:
    assert {state.value for state in State} == {"held", "approved", "denied", "expired", "delivered", "shredded", "abandoned"}


def test_nobody_edits_an_item() -> None:
    with pytest.raises(FrozenInstanceError):
        ITEM.state = State.APPROVED  # type: ignore[misc]


def test_what_goes_out_is_the_redacted_form_where_there_is_one() -> None:
    assert Payload(b"raw").outgoing == b"raw" and Payload(b"raw", (), b"").outgoing == b""
