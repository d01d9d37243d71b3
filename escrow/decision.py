"""From verdicts to a decision: what "agree" means, in one total function.

Pure. A second judge needs a row here and nothing in the gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from escrow.verdict import Finding, Verdict


class Ruling(StrEnum):
    """What happens to a message once its judges have spoken."""

    RELEASE = "release"
    HOLD = "hold"
    REFUSE = "refuse"


Recorded = Literal["hostile", "unsure", "scanner only"]
"""What a decision is recorded as. `agreed` comes with the second judge; a scanner alone never earns it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """ruling: what happens. recorded: the word it is shown as everywhere."""

    ruling: Ruling
    recorded: Recorded


def decide(verdicts: tuple[Verdict, ...], required: frozenset[str], on_hostile: Literal["hold", "refuse"]) -> Decision:
    """Apply design's table.

    | any HOSTILE | any UNSURE, or a required judge silent | decision | recorded as |
    | --- | --- | --- | --- |
    | yes | any | hold, or refuse where the policy says so | hostile |
    | no | yes | hold | unsure |
    | no | no | release | scanner only |

    Args:
        verdicts: what the judges said, in any order.
        required: judges that must have said CLEAN. An empty set still needs one verdict: silence never releases.
        on_hostile: the policy's choice for HOSTILE.
    """
    if any(verdict.finding is Finding.HOSTILE for verdict in verdicts):
        return Decision(Ruling.REFUSE if on_hostile == "refuse" else Ruling.HOLD, "hostile")
    spoke = {verdict.judge for verdict in verdicts}
    if not verdicts or not required <= spoke or any(verdict.finding is not Finding.CLEAN for verdict in verdicts):
        return Decision(Ruling.HOLD, "unsure")
    return Decision(Ruling.RELEASE, "scanner only")
