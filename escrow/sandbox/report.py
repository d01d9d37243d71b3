"""A run as people and supervisors are shown it: JSON, bounded, without the twin's answer. Pure.

Paths, addresses and arguments are the server's choice: whoever shows them escapes them.
"""

from __future__ import annotations

import json
from typing import Any, Final

from escrow.sandbox.run import Run
from escrow.verdict import Verdict

MOST: Final = 100
"""Of each sort of effect; how many there were stands beside it."""
MAX_TEXT: Final = 300


def report(run: Run, verdict: Verdict) -> str:
    """JSON text: {outcome, why, took_ms, frozen_ms, pooled, network, revert, effects, counts, differences}."""
    effects = run.effects
    value: dict[str, Any] = {
        "outcome": run.outcome,
        "why": run.why[:MAX_TEXT],
        "took_ms": round(run.took_ms, 3),
        "frozen_ms": round(run.frozen_ms, 3),
        "pooled": run.pooled,
        "network": run.network,
        "revert": None if run.revert is None else run.revert[:MAX_TEXT],
        "effects": {
            "writes": [{"path": each.path[:MAX_TEXT], "change": each.change.value, "mode": each.mode} for each in effects.writes[:MOST]],
            "connects": [
                {"address": each.address[:MAX_TEXT], "port": each.port, "name": each.name[:MAX_TEXT], "inside": each.inside} for each in effects.connects[:MOST]
            ],
            "executes": [{"path": each.path[:MAX_TEXT], "arguments": [a[:MAX_TEXT] for a in each.arguments[:16]]} for each in effects.executes[:MOST]],
            "reads": [path[:MAX_TEXT] for path in effects.reads[:MOST]],
            "incomplete": [why[:MAX_TEXT] for why in effects.incomplete[:MOST]],
        },
        "counts": {
            "writes": len(effects.writes),
            "connects": len(effects.connects),
            "executes": len(effects.executes),
            "reads": len(effects.reads),
        },
        "differences": [
            {"pointer": reason.pointer[:MAX_TEXT], "text": reason.text[:MAX_TEXT]} for reason in verdict.reasons if reason.rule == "sandbox.different"
        ],
    }
    return json.dumps(value)
