"""One verdict of a run: CLEAN only where it was whole, within the policy, and of one mind with the real answer."""

from __future__ import annotations

import pytest

from escrow.policy import Policy
from escrow.sandbox.effects import Change, Connect, Effects, Execute, Write
from escrow.sandbox.judge import after, before
from escrow.sandbox.run import Run
from escrow.verdict import Finding

RULES = Policy().for_call("s", "t")
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"fine"}]}}'
OTHER = ANSWER.replace(b"fine", b"else")
OUTSIDE = Effects(executes=(Execute("/bin/sh"),))


@pytest.mark.parametrize(
    "run, finding, reasons",
    [
        (Run("answered", answer=ANSWER), Finding.CLEAN, []),
        (Run("answered", answer=OTHER), Finding.UNSURE, ["sandbox.different"]),
        (Run("answered", answer=b"{"), Finding.UNSURE, ["sandbox.different"]),
        (Run("answered"), Finding.UNSURE, ["sandbox.failed"]),
        (Run("absent"), Finding.UNSURE, ["sandbox.absent"]),
        (Run("late"), Finding.UNSURE, ["sandbox.late"]),
        (Run("failed"), Finding.UNSURE, ["sandbox.failed"]),
        (Run("answered", Effects(incomplete=("lost",)), ANSWER), Finding.UNSURE, ["sandbox.incomplete"]),
        (Run("answered", answer=OTHER, network=True), Finding.UNSURE, ["sandbox.network"]),
        (Run("late", network=True), Finding.UNSURE, ["sandbox.late", "sandbox.network"]),
        (Run("answered", OUTSIDE, ANSWER), Finding.HOSTILE, ["sandbox.execute"]),
        (Run("failed", OUTSIDE), Finding.HOSTILE, ["sandbox.execute", "sandbox.failed"]),
        (Run("answered", Effects(writes=(Write("/etc/x", Change.DELETED),)), ANSWER), Finding.HOSTILE, ["sandbox.write"]),
        (Run("answered", Effects(connects=(Connect("9.9.9.9", 1),)), ANSWER, True), Finding.HOSTILE, ["sandbox.connect", "sandbox.network"]),
    ],
)
def test_a_run_and_the_real_answer_have_one_verdict(run: Run, finding: Finding, reasons: list[str]) -> None:
    verdict = after(run, ANSWER, RULES)
    assert (verdict.judge, verdict.finding, [reason.rule for reason in verdict.reasons]) == ("sandbox", finding, reasons)
    early = before(run, RULES)
    assert [reason.rule for reason in early.reasons] == [rule for rule in reasons if rule != "sandbox.different"]


def test_a_difference_is_named_by_its_place_and_not_quoted() -> None:
    (reason,) = after(Run("answered", answer=OTHER), ANSWER, RULES).reasons
    assert reason.pointer == "/result/content/0/text" and "else" not in reason.text
