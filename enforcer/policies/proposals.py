"""Changes of the policy that somebody asks for and a person decides: what a supervising agent may do at most.

Bookkeeping only; the holder keeps it on disk and carries accepted ones out.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from escrow.policy.patch import Flat, deep, flat, render
from escrow.policy.reading import PolicyError, parse

MAX_WAITING: Final = 64
MAX_WAITING_EACH: Final = 16
"""Proposals of one proposer that may wait at once."""

MAX_CHARS: Final = 64 * 1024
MAX_DECIDED: Final = 32
"""Decided proposals remembered, for whoever asks what became of theirs."""


class PolicyRefused(ValueError):
    """A change of the policy that cannot be made now, though its text may be sound. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """changes: dotted keys with their new values; None takes a key out. Times are Unix seconds.

    against: the version it was made against. version: the version it would have made of it.
    """

    id: str
    by: str
    why: str
    at: float
    changes: Flat
    against: str
    version: str
    state: Literal["waiting", "accepted", "rejected"] = "waiting"
    decided_by: str | None = None
    decided_at: float | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def changes_of(asked: str | Mapping[str, Any]) -> Flat:
    """What is asked for, as dotted keys: TOML with the keys to change, or the keys themselves. Raises PolicyError."""
    if isinstance(asked, str):
        try:
            found = flat(parse(asked, "the proposal", MAX_CHARS))
        except RecursionError:
            raise PolicyError("the proposal: nested too deeply") from None
    else:
        found = dict(asked)
    if not found:
        raise PolicyError("the proposal changes nothing")
    return found


def difference(old: Flat, new: Flat, against: str, version: str) -> str:
    """A unified diff of two policies as TOML, without what is default. Not escaped: whoever shows it does that."""
    before, after = (render(deep(side)).splitlines() for side in (old, new))
    return "\n".join(difflib.unified_diff(before, after, f"policy {against}", f"policy {version}", lineterm=""))


@dataclass(slots=True)
class Waiting:
    """The proposals, oldest first."""

    all: list[Proposal] = field(default_factory=list)

    def get(self, proposal_id: str) -> Proposal:
        """One that waits. Raises PolicyRefused."""
        for proposal in self.all:
            if proposal.id == proposal_id:
                if proposal.state != "waiting":
                    raise PolicyRefused(f"this proposal is {proposal.state} already, by {proposal.decided_by}")
                return proposal
        raise PolicyRefused("there is no such proposal")

    def room_for(self, by: str) -> None:
        """Raises PolicyRefused where too many wait."""
        waiting = [proposal for proposal in self.all if proposal.state == "waiting"]
        if len(waiting) >= MAX_WAITING or sum(proposal.by == by for proposal in waiting) >= MAX_WAITING_EACH:
            raise PolicyRefused("too many proposals wait for a person already")

    def with_one(self, changed: Proposal) -> Waiting:
        """These, with a new proposal or a new state of one; the oldest decided ones are forgotten."""
        known = any(proposal.id == changed.id for proposal in self.all)
        found = [changed if proposal.id == changed.id else proposal for proposal in self.all] + ([] if known else [changed])
        decided = [proposal.id for proposal in found if proposal.state != "waiting"]
        forgotten = set(decided[: max(0, len(decided) - MAX_DECIDED)])
        return Waiting([proposal for proposal in found if proposal.id not in forgotten])
