"""Who presents tokens that are none: counted for each origin, and slowed. A good token is never slowed by another's guesses.

Pure but for its memory, which is bounded. Guessing 256 bits is hopeless at any rate; this keeps the noise down and visible.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

FREE = 10
"""Failures within WINDOW_S that are answered at once."""
WINDOW_S = 60.0
MOST_ORIGINS = 1024
DELAY_S = 1.0
"""How long the answer to a further one is held back."""
AT_ONCE = 32
"""Answers held back at a time; beyond that they are refused at once."""


@dataclass(slots=True)
class _Origin:
    failures: int
    since: float


class Guesses:
    """refused: all since the start. slowed: those that came too often."""

    def __init__(self) -> None:
        self.refused = 0
        self.slowed = 0
        self.waiting = 0
        self._origins: OrderedDict[str, _Origin] = OrderedDict()

    def failed(self, origin: str, now: float) -> bool:
        """One more came from there (now: monotonic seconds). Whether it is one too many."""
        self.refused += 1
        known = self._origins.pop(origin, None)
        if known is None or now - known.since > WINDOW_S:
            known = _Origin(0, now)
        known.failures += 1
        self._origins[origin] = known  # the one that was heard of longest ago goes first
        while len(self._origins) > MOST_ORIGINS:
            self._origins.popitem(last=False)
        if known.failures <= FREE:
            return False
        self.slowed += 1
        return True

    @property
    def origins(self) -> int:
        return len(self._origins)
