"""The end of a test run says what did not run, and why: a skip is a gap in the proof, so it is counted and named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Skips:
    """Tests that did not run, by reason."""

    by_reason: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str) -> None:
        self.by_reason[reason.removeprefix("Skipped: ")] += 1

    def lines(self) -> list[str]:
        """A line for each reason, the commonest first."""
        return [f"{count:4d} not run: {reason}" for reason, count in self.by_reason.most_common()]


def closing(passed: int, failed: int, skipped: int) -> str:
    """The counted line: "N passed, N failed, N skipped"."""
    return f"{passed} passed, {failed} failed, {skipped} skipped"
