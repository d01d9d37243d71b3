"""The verdict of the judge "sandbox": a run, the real answer and the policy in; one `Verdict` out.

Pure. HOSTILE: an effect outside the policy, also where the run failed otherwise. UNSURE: no run, no whole run, effects that may not be all, a stop at the
network, another answer. CLEAN: none of these.
"""

from __future__ import annotations

from typing import Final

from escrow.decision import NETWORK
from escrow.policy.rules import ToolRules
from escrow.sandbox.agreement import Agreement, Kind, compare
from escrow.sandbox.permitted import outside_policy
from escrow.sandbox.run import Outcome, Run
from escrow.verdict import Finding, Reason, Verdict

JUDGE: Final = "sandbox"

_OUTCOMES: Final[dict[Outcome, Reason | None]] = {
    "answered": None,
    "late": Reason("sandbox.late", "The twin did not answer in its time."),
    "failed": Reason("sandbox.failed", "The twin failed, passed a bound, or its state could not be frozen in time."),
    "absent": Reason("sandbox.absent", "There is no twin to run it in."),
}
_INCOMPLETE: Final = Reason("sandbox.incomplete", "What the run did may not be all known.")
_SILENT: Final = Reason("sandbox.failed", "The run ended without an answer.")
_NETWORK: Final = Reason(NETWORK, "The twin needed the network, which it has none of: its answer cannot be compared.")
_DIFFERENT: Final[dict[Kind, str]] = {
    "value": "The twin answered another value here.",
    "type": "The twin answered another type of value here.",
    "only in the twin": "Only the twin's answer has this.",
    "only in the real answer": "Only the real answer has this.",
    "length": "The twin answered a list of another length here.",
    "unreadable": "The two answers cannot both be read as one JSON-RPC response.",
    "too many": "There is more that differs, or too much to compare.",
}


def before(run: Run, rules: ToolRules) -> Verdict:
    """Of a run before the real call: its effects alone, as there is no answer yet to hold its own against."""
    return _verdict(run, outside_policy(run.effects, rules) + _course(run))


def after(run: Run, real_answer: bytes, rules: ToolRules, learned: frozenset[str] = frozenset()) -> Verdict:
    """Of a run and the real answer. learned: volatile places, from `agreement.learn`.

    A run that stopped at the network is not compared: that it answered otherwise says nothing.
    """
    reasons = outside_policy(run.effects, rules) + _course(run)
    if run.outcome == "answered" and run.answer is not None and not run.network:
        reasons += _differences(compare(run.answer, real_answer, rules.volatile, learned))
    return _verdict(run, reasons)


def _course(run: Run) -> tuple[Reason, ...]:
    """What keeps the run from being a whole one."""
    outcome = _OUTCOMES[run.outcome] if run.outcome != "answered" or run.answer is not None else _SILENT
    incomplete, network = None if run.effects.complete else _INCOMPLETE, _NETWORK if run.network else None
    return tuple(reason for reason in (outcome, incomplete, network) if reason is not None)


def _differences(agreement: Agreement) -> tuple[Reason, ...]:
    return tuple(Reason("sandbox.different", _DIFFERENT[difference.kind], difference.pointer) for difference in agreement.differences)


_HOSTILE: Final = frozenset({"sandbox.read", "sandbox.write", "sandbox.connect", "sandbox.execute"})


def _verdict(run: Run, reasons: tuple[Reason, ...]) -> Verdict:
    if any(reason.rule in _HOSTILE for reason in reasons):
        return Verdict(JUDGE, Finding.HOSTILE, 1.0, reasons, run.took_ms)
    if reasons:
        return Verdict(JUDGE, Finding.UNSURE, 0.5, reasons, run.took_ms)
    return Verdict(JUDGE, Finding.CLEAN, 0.0, (), run.took_ms)
