"""From verdicts to a decision: what "agree" means, in two total functions.

Pure. The table stands in docs/sandbox.md too, and a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from escrow.verdict import Finding, Verdict, worst


class Ruling(StrEnum):
    """What happens to a message once its judges have spoken."""

    RELEASE = "release"
    HOLD = "hold"
    REFUSE = "refuse"


Recorded = Literal["hostile", "unsure", "agreed", "scanner only", "trial", "not judged"]
"""What a decision is recorded as. `agreed`: scanner and sandbox both said CLEAN; a scanner alone never earns it."""

Unclean = Literal["hold", "refuse", "pass"]

NEVER_TRIED: Final = frozenset({"lock"})
"""Judges whose word stands on trial too: a person locked the server."""

_SEVERITY = {Ruling.RELEASE: 0, Ruling.HOLD: 1, Ruling.REFUSE: 2}


@dataclass(frozen=True, slots=True)
class Decision:
    """ruling: what happens. recorded: the word it is shown as everywhere.

    would_have: what would have happened but for a trial; None where nothing but the judges decided.
    """

    ruling: Ruling
    recorded: Recorded
    would_have: Ruling | None = None


NETWORK: Final = "sandbox.network"
"""The reason of a run that stopped at the network. A sandbox that is UNSURE for this alone is what `outside` is about."""

_RELEASED = Decision(Ruling.RELEASE, "scanner only")
_AGREED = Decision(Ruling.RELEASE, "agreed")


def decide(
    verdicts: tuple[Verdict, ...],
    required: frozenset[str],
    on_hostile: Unclean = "hold",
    on_unsure: Unclean = "hold",
    trial: bool = False,
    outside: Literal["hold", "scanner-only"] = "hold",
) -> Decision:
    """Apply design's table.

    | any HOSTILE | any UNSURE, or a required judge silent | decision | recorded as |
    | --- | --- | --- | --- |
    | yes | any | on_hostile: hold, refuse | hostile |
    | no | yes | on_unsure: hold, refuse | unsure |
    | yes, or | yes | either says "pass", on trial: release, and what would have been is hold | trial |
    | no | no, and the sandbox is CLEAN beside the scanner | release | agreed |
    | no | no, and the sandbox is not among them | release | scanner only |
    | no | only the sandbox, only for `NETWORK`, and the scanner is CLEAN | `outside`: as UNSURE, or release | unsure, or scanner only |

    No trial passes what `NEVER_TRIED` names. A worse verdict never has a milder outcome: HOSTILE gets what UNSURE would get, or more.

    Args:
        verdicts: what the judges said, in any order.
        required: judges that must have said CLEAN. An empty set still needs one verdict: silence never releases.
        on_hostile, on_unsure: the policy's choices. "pass" without a trial holds.
        trial: the policy says that "pass" is meant.
        outside: the policy's choice for a sandbox that stopped at the network and at nothing else, also where it is required.
    """
    if len(verdicts) == 1 and verdicts[0].finding is Finding.CLEAN and (not required or required == {verdicts[0].judge}):
        return _RELEASED  # what nearly every message meets; the same by the table
    if any(verdict.judge in NEVER_TRIED and verdict.finding is not Finding.CLEAN for verdict in verdicts):
        trial = False
    if verdicts and all(verdict.finding is Finding.CLEAN for verdict in verdicts) and required <= {verdict.judge for verdict in verdicts}:
        return _AGREED if len(verdicts) > 1 and _BOTH.issubset({verdict.judge for verdict in verdicts}) else _RELEASED
    if outside == "scanner-only" and _only_outside(verdicts, required):
        return _RELEASED
    finding = worst(verdicts)
    ruling = _ruling(on_unsure, trial)  # also where all are CLEAN: then a required one is missing
    if finding is Finding.HOSTILE:
        ruling = max(_ruling(on_hostile, trial), ruling, key=_SEVERITY.__getitem__)
    if ruling is Ruling.RELEASE:
        return Decision(Ruling.RELEASE, "trial", Ruling.HOLD)
    return Decision(ruling, "hostile" if finding is Finding.HOSTILE else "unsure")


_BOTH: Final = frozenset({"scanner", "sandbox"})


def _only_outside(verdicts: tuple[Verdict, ...], required: frozenset[str]) -> bool:
    """Whether nothing stands against a release but that the twin stopped at the network."""
    spoken = {verdict.judge for verdict in verdicts}
    return _BOTH | required <= spoken and all(
        verdict.finding is Finding.CLEAN
        or (
            verdict.judge == "sandbox"
            and verdict.finding is Finding.UNSURE
            and bool(verdict.reasons)
            and all(reason.rule == NETWORK for reason in verdict.reasons)
        )
        for verdict in verdicts
    )


def _ruling(choice: Unclean, trial: bool) -> Ruling:
    match choice:
        case "refuse":
            return Ruling.REFUSE
        case "pass" if trial:
            return Ruling.RELEASE
        case _:
            return Ruling.HOLD


def decide_arguments(
    verdicts: tuple[Verdict, ...],
    outgoing: Literal["hold", "refuse", "note", "off"],
    taint: Literal["hold", "note", "off"],
) -> Decision:
    """What becomes of a call by what was said of its arguments, before it goes on.

    | | clean | not clean, or nobody spoke |
    | --- | --- | --- |
    | outgoing "hold", "refuse" | release | hold, refuse |
    | outgoing "note" | release | release, recorded as a trial |
    | outgoing "off" | release, not judged | the same |

    The verdict of the judge "taint" is taken apart from the others and meets `taint` instead; that it is not there is no fault. The
    stricter of the two counts.
    """
    if len(verdicts) == 1 and outgoing != "off" and verdicts[0].finding is Finding.CLEAN and verdicts[0].judge != "taint":
        return _RELEASED  # what nearly every call meets; the same by the table
    tainted = tuple(verdict for verdict in verdicts if verdict.judge == "taint")
    others = tuple(verdict for verdict in verdicts if verdict.judge != "taint")
    decisions = []
    if outgoing != "off":
        decisions.append(decide(others, frozenset(), *_choice(outgoing)))
    if taint != "off" and tainted:
        decisions.append(decide(tainted, frozenset(), *_choice(taint)))
    if not decisions:
        return Decision(Ruling.RELEASE, "not judged")
    return max(decisions, key=lambda decision: (_SEVERITY[decision.ruling], decision.would_have is not None, decision.recorded == "hostile"))


def _choice(setting: Literal["hold", "refuse", "note"]) -> tuple[Unclean, Unclean, bool]:
    chosen: Unclean = "pass" if setting == "note" else setting
    return chosen, chosen, setting == "note"
