"""How long to wait before a process that ended is started again."""

from __future__ import annotations

FIRST_RESTART_S = 1.0
LAST_RESTART_S = 30.0
HEALTHY_S = 60.0
"""A process that lived this long starts its backoff anew."""


def next_delay(before_s: float, lived_s: float) -> float:
    """How long to wait before the next start: 1, 2, 4 … 30 s. before_s: the previous delay, 0 for none."""
    if before_s == 0 or lived_s >= HEALTHY_S:
        return FIRST_RESTART_S
    return min(before_s * 2, LAST_RESTART_S)
