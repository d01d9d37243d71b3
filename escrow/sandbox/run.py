"""One run of one call in a twin, as data.

Pure. It crosses the socket between the keeper of the twins and the daemon as JSON (`enforcer.sandbox.frames`), so every field has a bound there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from escrow.sandbox.effects import NO_EFFECTS, Effects

Outcome = Literal["answered", "late", "failed", "absent"]
"""answered: within its time. late: no answer within `run_ms`. failed: it crashed, passed a bound, or its state could not be frozen in time.

absent: there is no twin (no runsc, no template, the keeper is gone). All but the first are UNSURE.
"""


@dataclass(frozen=True, slots=True)
class Run:
    """See the module.

    answer: the JSON-RPC response's bytes as the twin sent them; None without one.
    network: it tried to leave the twin, and could not: its answer says nothing of what the real server finds there.
    why: in our words, for people; "" where it answered.
    took_ms: from the request's arrival at the twin to its answer. frozen_ms: to freeze the state. pooled: it came from the pool.
    """

    outcome: Outcome
    effects: Effects = NO_EFFECTS
    answer: bytes | None = None
    network: bool = False
    why: str = ""
    took_ms: float = 0.0
    frozen_ms: float = 0.0
    pooled: bool = False
    learned: tuple[str, ...] = ()
    """Places in which two twins answered this tool's calls differently (`agreement.general`)."""
