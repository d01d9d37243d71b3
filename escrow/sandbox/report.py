"""A run as people and supervisors are shown it: JSON, bounded, with what the policy does not allow first and the answers side by side where they differ. Pure.

Paths, addresses, arguments and values are the server's choice: whoever shows them escapes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, TypeVar

from escrow.policy.rules import ToolRules
from escrow.sandbox.beside import beside
from escrow.sandbox.permitted import forbidden
from escrow.sandbox.run import Run
from escrow.verdict import Verdict

MOST: Final = 100
"""Of each sort of effect; how many there were stands beside it."""
MAX_TEXT: Final = 300

_T = TypeVar("_T")


def report(run: Run, verdict: Verdict, rules: ToolRules, real_answer: bytes | None = None) -> str:
    """JSON text: {outcome, why, took_ms, frozen_ms, pooled, network, effects, counts, differences}.

    real_answer: what the twin's was compared with; None before there is one. allowed: of an effect, whether the policy allows it.
    """
    effects, bad = run.effects, forbidden(run.effects, rules)
    pointers = [reason.pointer for reason in verdict.reasons if reason.rule == "sandbox.different"]
    values = beside(run.answer, real_answer, pointers)
    value: dict[str, Any] = {
        "outcome": run.outcome,
        "why": run.why[:MAX_TEXT],
        "took_ms": round(run.took_ms, 3),
        "frozen_ms": round(run.frozen_ms, 3),
        "pooled": run.pooled,
        "network": run.network,
        "effects": {
            "writes": [
                {"path": each.path[:MAX_TEXT], "change": each.change.value, "mode": each.mode, "allowed": allowed}
                for each, allowed in _worst_first(effects.writes, bad.writes)
            ],
            "connects": [
                {"address": each.address[:MAX_TEXT], "port": each.port, "name": each.name[:MAX_TEXT], "inside": each.inside, "allowed": allowed}
                for each, allowed in _worst_first(effects.connects, bad.connects)
            ],
            "executes": [
                {"path": each.path[:MAX_TEXT], "arguments": [a[:MAX_TEXT] for a in each.arguments[:16]], "allowed": allowed}
                for each, allowed in _worst_first(effects.executes, bad.executes)
            ],
            "reads": [{"path": each[:MAX_TEXT], "allowed": allowed} for each, allowed in _worst_first(effects.reads, bad.reads)],
            "incomplete": [why[:MAX_TEXT] for why in effects.incomplete[:MOST]],
        },
        "counts": {
            "writes": len(effects.writes),
            "connects": len(effects.connects),
            "executes": len(effects.executes),
            "reads": len(effects.reads),
            "incomplete": len(effects.incomplete),
        },
        "differences": [
            {"pointer": reason.pointer[:MAX_TEXT], "text": reason.text[:MAX_TEXT], "twin": twin, "real": real}
            for reason, (twin, real) in zip((reason for reason in verdict.reasons if reason.rule == "sandbox.different"), values, strict=True)
        ],
    }
    return json.dumps(value)


def _worst_first(all_: Iterable[_T], bad: Iterable[_T]) -> list[tuple[_T, bool]]:
    found = dict.fromkeys(bad)
    return [*((each, False) for each in found), *((each, True) for each in all_ if each not in found)][:MOST]
