"""What "agree" means: the whole table, and that silence never releases."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.decision import NETWORK, Decision, Ruling, Unclean, decide, decide_arguments
from escrow.verdict import Finding, Reason, Verdict, unsure, worst

SCANNER = frozenset({"scanner"})
SEVERITY = [Ruling.RELEASE, Ruling.HOLD, Ruling.REFUSE]
WORSE = [Finding.CLEAN, Finding.UNSURE, Finding.HOSTILE]
HELD, REFUSED = Ruling.HOLD, Ruling.REFUSE

choices: st.SearchStrategy[Unclean] = st.sampled_from(["hold", "refuse", "pass"])
some_verdicts = st.lists(
    st.builds(Verdict, st.sampled_from(["scanner", "sandbox", "jury", "tools", "taint", "outgoing", "lock"]), st.sampled_from(Finding), st.just(0.5)),
    max_size=4,
).map(tuple)
requirements = st.frozensets(st.sampled_from(["scanner", "sandbox"]))


@pytest.mark.parametrize(
    "findings, on_hostile, on_unsure, trial, expected",
    [
        (["CLEAN"], "hold", "hold", False, Decision(Ruling.RELEASE, "scanner only")),
        (["UNSURE"], "hold", "hold", False, Decision(HELD, "unsure")),
        (["HOSTILE"], "hold", "hold", False, Decision(HELD, "hostile")),
        (["HOSTILE"], "refuse", "hold", False, Decision(REFUSED, "hostile")),
        (["CLEAN", "UNSURE"], "refuse", "hold", False, Decision(HELD, "unsure")),
        (["UNSURE", "HOSTILE"], "refuse", "hold", False, Decision(REFUSED, "hostile")),
        (["CLEAN", "HOSTILE"], "hold", "hold", False, Decision(HELD, "hostile")),
        ([], "hold", "hold", False, Decision(HELD, "unsure")),
        (["UNSURE"], "refuse", "refuse", False, Decision(REFUSED, "unsure")),
        ([], "refuse", "refuse", False, Decision(REFUSED, "unsure")),
        (["UNSURE"], "hold", "pass", True, Decision(Ruling.RELEASE, "trial", HELD)),
        (["HOSTILE"], "hold", "pass", True, Decision(HELD, "hostile")),
        (["HOSTILE"], "pass", "pass", True, Decision(Ruling.RELEASE, "trial", HELD)),
        (["HOSTILE"], "pass", "hold", True, Decision(HELD, "hostile")),
        (["CLEAN"], "pass", "pass", True, Decision(Ruling.RELEASE, "scanner only")),
        ([], "pass", "pass", True, Decision(Ruling.RELEASE, "trial", HELD)),
        (["UNSURE"], "pass", "pass", False, Decision(HELD, "unsure")),
        (["HOSTILE"], "pass", "pass", False, Decision(HELD, "hostile")),
    ],
)
def test_the_table(findings: list[str], on_hostile: Unclean, on_unsure: Unclean, trial: bool, expected: Decision) -> None:
    verdicts = tuple(Verdict("scanner", Finding(finding), 0.5) for finding in findings)
    assert decide(verdicts, SCANNER, on_hostile, on_unsure, trial) == expected
    assert decide(verdicts[::-1], SCANNER, on_hostile, on_unsure, trial) == expected


def test_only_clean_from_every_required_judge_releases() -> None:
    for findings in product(Finding, repeat=2):
        verdicts = tuple(Verdict(judge, finding, 0.0) for judge, finding in zip(("scanner", "tools"), findings, strict=True))
        released = decide(verdicts, SCANNER, "hold").ruling is Ruling.RELEASE
        assert released == (findings == (Finding.CLEAN, Finding.CLEAN))
    assert decide((Verdict("tools", Finding.CLEAN, 0.0),), SCANNER, "hold").ruling is Ruling.HOLD, "the scanner was silent"
    assert decide((), frozenset(), "hold").ruling is Ruling.HOLD, "nobody spoke"


@given(some_verdicts, requirements, choices, choices, st.booleans())
def test_nothing_is_released_unless_every_required_judge_is_clean_or_a_trial_says_so(
    verdicts: tuple[Verdict, ...], required: frozenset[str], on_hostile: Unclean, on_unsure: Unclean, trial: bool
) -> None:
    decision = decide(verdicts, required, on_hostile, on_unsure, trial)
    clean = bool(verdicts) and all(verdict.finding is Finding.CLEAN for verdict in verdicts) and required <= {verdict.judge for verdict in verdicts}
    assert decision.would_have in (None, HELD) and (decision.recorded == "trial") == (decision.would_have is not None)
    if decision.ruling is Ruling.RELEASE:
        assert clean or (trial and "pass" in (on_hostile, on_unsure) and decision.recorded == "trial")
    agreed = {"scanner", "sandbox"} <= {verdict.judge for verdict in verdicts}
    assert not clean or decision == Decision(Ruling.RELEASE, "agreed" if agreed else "scanner only")
    assert decision.recorded != "agreed" or (clean and agreed)


@given(some_verdicts.filter(bool), requirements, choices, choices, st.booleans(), st.data())
def test_a_worse_verdict_never_has_a_milder_outcome(
    verdicts: tuple[Verdict, ...], required: frozenset[str], on_hostile: Unclean, on_unsure: Unclean, trial: bool, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(verdicts) - 1))
    graver = data.draw(st.sampled_from(WORSE[WORSE.index(verdicts[at].finding) :]))
    worsened = (*verdicts[:at], Verdict(verdicts[at].judge, graver, 0.5), *verdicts[at + 1 :])
    before, after = (decide(each, required, on_hostile, on_unsure, trial).ruling for each in (verdicts, worsened))
    assert SEVERITY.index(after) >= SEVERITY.index(before)


@given(some_verdicts, requirements, choices, choices)
def test_without_a_trial_pass_is_hold(verdicts: tuple[Verdict, ...], required: frozenset[str], on_hostile: Unclean, on_unsure: Unclean) -> None:
    stricter: list[Unclean] = ["hold" if choice == "pass" else choice for choice in (on_hostile, on_unsure)]
    assert decide(verdicts, required, on_hostile, on_unsure) == decide(verdicts, required, *stricter)


def test_no_trial_passes_what_a_person_has_locked() -> None:
    scanner = Verdict("scanner", Finding.CLEAN, 0.0)
    assert decide((scanner, unsure("lock", "lock.held", "Locked.")), SCANNER, "pass", "pass", True) == Decision(HELD, "unsure")
    assert decide((scanner, Verdict("lock", Finding.CLEAN, 0.0)), SCANNER, "pass", "pass", True).ruling is Ruling.RELEASE


ELSEWHERE = Verdict("sandbox", Finding.UNSURE, 0.5, (Reason(NETWORK, "It needed the network."),))


@given(some_verdicts, requirements, st.booleans())
def test_only_a_clean_scanner_beside_a_run_that_stopped_at_the_network_and_nowhere_else_is_let_through(
    verdicts: tuple[Verdict, ...], required: frozenset[str], late: bool
) -> None:
    reasons = (*ELSEWHERE.reasons, Reason("sandbox.late", "It was late.")) if late else ELSEWHERE.reasons
    judged = (*verdicts, Verdict("sandbox", Finding.UNSURE, 0.5, reasons))
    decision = decide(judged, required, outside="scanner-only")
    others_clean = all(verdict.finding is Finding.CLEAN for verdict in verdicts) and "scanner" in {verdict.judge for verdict in verdicts}
    assert (decision == Decision(Ruling.RELEASE, "scanner only")) == (others_clean and not late)
    assert decide(judged, required).ruling is Ruling.HOLD, "unless the policy says so"


def test_an_unsure_sandbox_that_says_no_reason_is_not_let_through() -> None:
    judged = (Verdict("scanner", Finding.CLEAN, 0.0), Verdict("sandbox", Finding.UNSURE, 0.5))
    assert decide(judged, SCANNER, outside="scanner-only") == Decision(HELD, "unsure")


HOSTILE, CLEAN = Verdict("outgoing", Finding.HOSTILE, 1.0), Verdict("outgoing", Finding.CLEAN, 0.0)
TAINTED, UNTAINTED = Verdict("taint", Finding.UNSURE, 0.6), Verdict("taint", Finding.CLEAN, 0.0)
NOTED = Decision(Ruling.RELEASE, "trial", HELD)


@pytest.mark.parametrize(
    "verdicts, outgoing, taint, expected",
    [
        ((CLEAN,), "hold", "hold", Decision(Ruling.RELEASE, "scanner only")),
        ((CLEAN, UNTAINTED), "hold", "hold", Decision(Ruling.RELEASE, "scanner only")),
        ((HOSTILE,), "hold", "off", Decision(HELD, "hostile")),
        ((HOSTILE,), "refuse", "off", Decision(REFUSED, "hostile")),
        ((HOSTILE,), "note", "off", NOTED),
        ((HOSTILE,), "off", "off", Decision(Ruling.RELEASE, "not judged")),
        ((), "hold", "hold", Decision(HELD, "unsure")),
        ((), "refuse", "hold", Decision(REFUSED, "unsure")),
        ((), "off", "hold", Decision(Ruling.RELEASE, "not judged")),
        ((CLEAN, TAINTED), "hold", "hold", Decision(HELD, "unsure")),
        ((CLEAN, TAINTED), "hold", "note", NOTED),
        ((CLEAN, TAINTED), "hold", "off", Decision(Ruling.RELEASE, "scanner only")),
        ((HOSTILE, TAINTED), "note", "hold", Decision(HELD, "unsure")),
        ((HOSTILE, TAINTED), "refuse", "note", Decision(REFUSED, "hostile")),
        ((TAINTED,), "off", "hold", Decision(HELD, "unsure")),
        ((TAINTED,), "hold", "note", Decision(HELD, "unsure")),
    ],
)
def test_the_table_of_what_goes_out(verdicts: tuple[Verdict, ...], outgoing: str, taint: str, expected: Decision) -> None:
    assert decide_arguments(verdicts, outgoing, taint) == expected  # type: ignore[arg-type]
    assert decide_arguments(verdicts[::-1], outgoing, taint) == expected  # type: ignore[arg-type]


def test_a_judge_that_could_not_judge_is_unsure() -> None:
    verdict = unsure("scanner", "scanner.failed", "It failed.")
    assert verdict.finding is Finding.UNSURE and worst((verdict, Verdict("x", Finding.CLEAN, 0))) is Finding.UNSURE
    assert worst(()) is Finding.UNSURE
