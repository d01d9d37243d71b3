"""What "agree" means: the whole table, and that silence never releases."""

from __future__ import annotations

from itertools import product

import pytest

from escrow.decision import Decision, Ruling, decide
from escrow.verdict import Finding, Verdict, unsure, worst

SCANNER = frozenset({"scanner"})


@pytest.mark.parametrize(
    "findings, on_hostile, expected",
    [
        (["CLEAN"], "hold", Decision(Ruling.RELEASE, "scanner only")),
        (["UNSURE"], "hold", Decision(Ruling.HOLD, "unsure")),
        (["HOSTILE"], "hold", Decision(Ruling.HOLD, "hostile")),
        (["HOSTILE"], "refuse", Decision(Ruling.REFUSE, "hostile")),
        (["CLEAN", "UNSURE"], "refuse", Decision(Ruling.HOLD, "unsure")),
        (["UNSURE", "HOSTILE"], "refuse", Decision(Ruling.REFUSE, "hostile")),
        (["CLEAN", "HOSTILE"], "hold", Decision(Ruling.HOLD, "hostile")),
        ([], "hold", Decision(Ruling.HOLD, "unsure")),
    ],
)
def test_the_table(findings: list[str], on_hostile: str, expected: Decision) -> None:
    verdicts = tuple(Verdict("scanner", Finding(finding), 0.5) for finding in findings)
    assert decide(verdicts, SCANNER, on_hostile) == expected  # type: ignore[arg-type]
    assert decide(verdicts[::-1], SCANNER, on_hostile) == expected  # type: ignore[arg-type]


def test_only_clean_from_every_required_judge_releases() -> None:
    for findings in product(Finding, repeat=2):
        verdicts = tuple(Verdict(judge, finding, 0.0) for judge, finding in zip(("scanner", "tools"), findings, strict=True))
        released = decide(verdicts, SCANNER, "hold").ruling is Ruling.RELEASE
        assert released == (findings == (Finding.CLEAN, Finding.CLEAN))
    assert decide((Verdict("tools", Finding.CLEAN, 0.0),), SCANNER, "hold").ruling is Ruling.HOLD, "the scanner was silent"
    assert decide((), frozenset(), "hold").ruling is Ruling.HOLD, "nobody spoke"


def test_a_judge_that_could_not_judge_is_unsure() -> None:
    verdict = unsure("scanner", "scanner.failed", "It failed.")
    assert verdict.finding is Finding.UNSURE and worst((verdict, Verdict("x", Finding.CLEAN, 0))) is Finding.UNSURE
    assert worst(()) is Finding.UNSURE
