"""What a supervising agent is shown of records, items and payloads. Text that a stranger may have chosen is escaped and bounded here."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from typing import Any

from escrow.item import Item, Payload
from escrow.supervisor.answers import (
    DifferenceView,
    EffectView,
    ItemView,
    JudgeView,
    ReasonView,
    TwinRun,
    UntrustedPayload,
    VerdictView,
)
from escrow.supervisor.shown import PLACE, fenced, shown
from escrow.verdict import Verdict

PAYLOAD_BYTES = 16 * 1024
"""Of a payload in one answer."""
_REASONS = 32
_EFFECTS = 100
_TEXT = 500


def verdict_view(record: dict[str, Any]) -> VerdictView:
    """record: as custody publishes it."""
    text = {key: None if record.get(key) is None else shown(str(record[key])) for key in ("recorded", "item", "kind", "tool", "server", "session", "by")}
    return VerdictView(
        id=record["id"],
        at=record["at"],
        outcome=shown(record["outcome"]),
        principal=_or_none(record.get("principal")),
        why=None if record.get("reason") is None else shown(str(record["reason"]), 2000),
        verdicts=[_judge_view(verdict) for verdict in record.get("verdicts", ())],
        **text,
    )


def item_view(item: Item, why_own: str | None) -> ItemView:
    """why_own: why the token that asks may not decide it."""
    return ItemView(
        id=item.id,
        state=item.state.value,
        holds=item.holds,
        kind=item.kind.value,
        tool=shown(item.tool),
        method=shown(item.method),
        server=shown(item.server),
        principal=shown(item.principal),
        session=_or_none(item.session),
        transport=item.transport.value,
        args_sha256=item.args_sha256,
        result_sha256=item.result_sha256,
        size_bytes=item.size_bytes,
        policy_version=item.policy_version,
        held_at=item.held_at,
        deadline=item.deadline,
        verdicts=[_judge_view(verdict) for verdict in item.verdicts],
        decided_by=_or_none(item.decided_by),
        decided_at=item.decided_at,
        reason=None if item.reason is None else shown(item.reason, 2000),
        may_decide=why_own is None,
        may_not_because=why_own,
    )


def payload_view(payload: Payload, offset: int) -> UntrustedPayload:
    """A part of the payload from a byte on, between lines that it cannot contain: their mark is made now."""
    part = payload.raw[offset : offset + PAYLOAD_BYTES]
    end = offset + len(part)
    mark = secrets.token_hex(16)
    return UntrustedPayload(
        text=fenced(part.decode("utf-8", "backslashreplace"), mark),
        mark=mark,
        sha256=hashlib.sha256(payload.raw).hexdigest(),
        total_bytes=len(payload.raw),
        offset=offset,
        next_offset=end if end < len(payload.raw) else None,
    )


def run_view(text: str) -> TwinRun:
    """text: `escrow.sandbox.report`, as it is kept beside the payload."""
    run = json.loads(text)
    return TwinRun(
        outcome=shown(run["outcome"]),
        why=shown(run["why"], _TEXT),
        took_ms=run["took_ms"],
        frozen_ms=run["frozen_ms"],
        pooled=run["pooled"],
        network=run["network"],
        effects=sorted(_effects(run["effects"]), key=lambda effect: effect.allowed)[:_EFFECTS],
        counts=run["counts"],
        incomplete=[shown(why, _TEXT) for why in run["effects"]["incomplete"][:_REASONS]],
        differences=[
            DifferenceView(
                pointer=shown(each["pointer"], PLACE),
                text=shown(each["text"], _TEXT),
                untrusted_twin=None if each["twin"] is None else shown(each["twin"], PLACE),
                untrusted_real=None if each["real"] is None else shown(each["real"], PLACE),
            )
            for each in run["differences"][:_REASONS]
        ],
    )


def _effects(found: dict[str, Any]) -> Iterator[EffectView]:
    for each in found["writes"]:
        yield EffectView(what=shown(each["change"]), untrusted=shown(each["path"], PLACE), allowed=each["allowed"])
    for each in found["connects"]:
        target = each["address"] if each["port"] is None else f"{each['address']} port {each['port']}"
        yield EffectView(what="inside" if each["inside"] else "connect", untrusted=shown(f"{target} {each['name']}".strip(), PLACE), allowed=each["allowed"])
    for each in found["executes"]:
        yield EffectView(what="started", untrusted=shown(" ".join([each["path"], *each["arguments"][1:]]), PLACE), allowed=each["allowed"])
    for each in found["reads"]:
        if not each["allowed"]:
            yield EffectView(what="read", untrusted=shown(each["path"], PLACE), allowed=False)


def _judge_view(verdict: Verdict) -> JudgeView:
    reasons = [
        ReasonView(rule=shown(reason.rule), text=shown(reason.text, 500), pointer=shown(reason.pointer, PLACE), via=[shown(step) for step in reason.via[:16]])
        for reason in verdict.reasons[:_REASONS]
    ]
    return JudgeView(
        judge=shown(verdict.judge), finding=verdict.finding.value, score=round(verdict.score, 4), reasons=reasons, took_ms=round(verdict.took_ms, 3)
    )


def _or_none(text: str | None) -> str | None:
    return None if text is None else shown(text)
