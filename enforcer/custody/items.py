"""New items: what a held message, or a held request, is written down as."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import replace
from typing import Literal

from enforcer.custody.judging import Verdicts
from enforcer.custody.traffic import Arrival
from escrow import jsonrpc
from escrow.call import NO_ARGUMENTS, Call, Kind
from escrow.decision import Ruling
from escrow.item import Item, Payload, State
from escrow.policy import ToolRules

_STATES = {Ruling.RELEASE: State.APPROVED, Ruling.HOLD: State.HELD, Ruling.REFUSE: State.DENIED}


def item_of_arrival(arrival: Arrival, payload: Payload, verdicts: Verdicts, ruling: Ruling, rules: ToolRules, policy_version: str) -> Item:
    """A message of the server's. Ruled RELEASE, it is clean, and waits only for its client to come back."""
    message = arrival.message
    call = arrival.call or Call(
        arrival.server, arrival.principal, arrival.session, arrival.transport, 0, arrival.method, arrival.method, NO_ARGUMENTS
    )  # fmt: skip
    answered = None if isinstance(message, jsonrpc.Notification) else message.id
    item = _item(call, arrival.kind, answered, payload, verdicts, ruling, rules, policy_version, "result")
    return replace(item, session=arrival.session, orphaned=not arrival.connected or item.state is State.DENIED)


def item_of_request(call: Call, request: jsonrpc.Request, verdicts: Verdicts, ruling: Ruling, rules: ToolRules, policy_version: str) -> Item:
    """A client's call, because of its arguments."""
    return _item(call, call.kind, request.id, Payload(request.raw), verdicts, ruling, rules, policy_version, "request")


def _item(
    call: Call,
    kind: Kind,
    call_id: int | str | None,
    payload: Payload,
    verdicts: Verdicts,
    ruling: Ruling,
    rules: ToolRules,
    policy_version: str,
    holds: Literal["result", "request"],
) -> Item:
    state = _STATES[ruling]
    now = time.time()
    return Item(
        id=f"hf-{secrets.token_hex(5)}",
        state=state,
        kind=kind,
        tool=call.name[:512],
        method=call.method[:128],
        server=call.server,
        principal=str(call.principal),
        session=call.session,
        transport=call.transport,
        call_id=call_id,
        args_sha256=call.args_sha256,
        result_sha256=hashlib.sha256(payload.raw).hexdigest(),
        size_bytes=len(payload.raw),
        policy_version=policy_version,
        held_at=now,
        deadline=now + rules.hold_for_s,
        verdicts=verdicts,
        orphaned=state is State.DENIED,
        decided_by=None if state is State.HELD else ("judges" if state is State.APPROVED else "policy"),
        decided_at=None if state is State.HELD else now,
        reason=None if state is State.HELD else ("clean, but its client had gone" if state is State.APPROVED else "the policy refuses it"),
        holds=holds,
    )
