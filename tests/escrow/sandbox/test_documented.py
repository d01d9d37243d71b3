"""The table in docs/sandbox.md is what `decide` does, row by row, and every pair of findings has a row."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Literal

import pytest

from escrow.decision import NETWORK, Ruling, decide
from escrow.verdict import Finding, Reason, Verdict

PAGE = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text("utf-8")
TABLE = PAGE[PAGE.index('## What "agree" means') : PAGE.index("*Stopped at the network*")]
ROWS = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("| ") and "---" not in line][1:]
SANDBOX = ["CLEAN", "UNSURE", "HOSTILE", "stopped at the network", "none", "none, required"]
CASES = list(product(Finding, SANDBOX, ("hold", "scanner-only")))


def row(scanner: str, sandbox: str, outside: str) -> tuple[str, str]:
    """The first row that is for it."""
    return next(
        (decision, recorded)
        for said, twin, choice, decision, recorded in ROWS
        if said in (scanner, "any") and twin in (sandbox, "any", "any other") and choice in (outside, "any")
    )


def test_there_are_rows() -> None:
    assert len(ROWS) == 9 and all(len(cells) == 5 for cells in ROWS)


@pytest.mark.parametrize("scanner, sandbox, outside", CASES)
def test_the_page_says_what_is_done(scanner: Finding, sandbox: str, outside: Literal["hold", "scanner-only"]) -> None:
    decision, recorded = row(scanner.value, sandbox, outside)
    verdicts: tuple[Verdict, ...] = (Verdict("scanner", scanner, 0.5),)
    if sandbox == "stopped at the network":
        verdicts += (Verdict("sandbox", Finding.UNSURE, 0.5, (Reason(NETWORK, "It needed the network."),)),)
    elif not sandbox.startswith("none"):
        verdicts += (Verdict("sandbox", Finding(sandbox), 0.5, (Reason("sandbox.late", "It was late."),)),)
    required = frozenset({"scanner", "sandbox"} if sandbox == "none, required" else {"scanner"})
    refused = decide(verdicts, required, "refuse", "refuse", False, outside)
    held = decide(verdicts, required, outside=outside)
    assert (held.ruling.value, held.recorded) == (re.match(r"\w+", decision)[0], recorded)  # type: ignore[index]
    assert (refused.ruling is Ruling.REFUSE) == ("on_" in decision) and refused.recorded == recorded
    assert ("on_hostile" in decision) == (decide(verdicts, required, "refuse", "hold", False, outside).ruling is Ruling.REFUSE)
