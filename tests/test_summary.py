"""The closing account."""

from __future__ import annotations

from tests.summary import Skips, closing


def test_skips_are_counted_by_reason_commonest_first() -> None:
    skips = Skips()
    for reason in ("Skipped: not root", "no runsc", "not root"):
        skips.add(reason)
    assert skips.lines() == ["   2 not run: not root", "   1 not run: no runsc"]


def test_the_closing_line_counts_all_three() -> None:
    assert closing(3, 0, 2) == "3 passed, 0 failed, 2 skipped"
