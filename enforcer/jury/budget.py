"""How often the jury may still be asked."""

from __future__ import annotations

from collections import deque
from typing import Final

_HOUR_S: Final = 3600.0


class Budget:
    """At most so many questions in any sixty minutes.

    The times themselves and no token bucket: a bucket that is full at first lets twice its rate through in its first hour, and the bill is the owner's.
    """

    def __init__(self, per_hour: int) -> None:
        self._per_hour = per_hour
        self._asked: deque[float] = deque()

    def take(self, now_s: float) -> bool:
        """Whether one more may be asked now (monotonic seconds); it is counted then."""
        while self._asked and self._asked[0] <= now_s - _HOUR_S:
            self._asked.popleft()
        if len(self._asked) >= self._per_hour:
            return False
        self._asked.append(now_s)
        return True
