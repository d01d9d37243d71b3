"""The running policy: the file, and over it the live changes that were recorded.

A live change belongs to a key: it stands over the value that the file had, and holds as long as the file says the same of that key. Who edits
the key in the file afterwards has the last word: at the next start the file's value counts, and the live change is set aside and shown. What
does not fit together, or cannot be read, stops the start: a tightened policy is never silently a loose one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from enforcer.policies.kept import FILE_NAME, Change, Kept, read_kept, write_kept
from enforcer.policies.proposals import PolicyRefused, Proposal, Waiting, changes_of, difference
from escrow.policy import Policy, PolicyError, read
from escrow.policy.patch import Flat, deep, differing, every, patched, render, said
from escrow.policy.places import Path as Place
from escrow.policy.reading import validate

FIXED: Final = {
    "fail": "it is in the kernel since the start",
    "server": "items bear the server's name",
    "servers": "their twins were built with it",
    "tls": "its files are read at the start",
    "principal": "its key is read at the start, and sessions have their principals",
    "scanner": "the workers were started with it",
    "jury": "its process was started with it",
    "bounds.head_bytes": "the connections to the server were made with it",
    "bounds.connect_s": "the helper was started with it",
}
"""Keys, and tables of keys, that only a restart changes, and why."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from: "default", "file" (with its line where it is known) or "live" (with who, when and why)."""

    key: str
    value: Any
    origin: str
    line: int | None = None
    by: str | None = None
    at: float | None = None
    why: str | None = None


class Policies:
    """Holds the running policy, in the daemon's loop. `current` is replaced whole, and only by `set` and `accept`.

    record: called with (old, new, by, why) before a change takes effect; where it raises, nothing changes. For the evidence.
    listeners: called with (old, new, by) after it took effect.
    set_aside: live changes that an edit of the file has overruled.
    """

    def __init__(self, file: Policy, folder: Path | None = None, lines: Mapping[Place, int] | None = None) -> None:
        """file: as loaded. folder: where live changes are kept; None keeps them in memory. lines: of the file, `Document.lines`.

        Raises PolicyError where what is kept cannot be read or does not go with the file.
        """
        self._file, self._lines, self._folder = said(file), dict(lines or {}), folder
        kept = read_kept(folder) if folder is not None else Kept()
        self._changes, self.set_aside = self._still_good(kept)
        self._waiting = Waiting(list(kept.proposals))
        self.current = self._over(file)
        self.record: Callable[[Policy, Policy, str, str], None] | None = None
        self.listeners: list[Callable[[Policy, Policy, str], None]] = []
        if (tuple(self._changes.values()), self.set_aside) != (kept.changes, kept.set_aside):
            self._keep(self._changes, self._waiting, self.set_aside)

    def _still_good(self, kept: Kept) -> tuple[dict[str, Change], tuple[Change, ...]]:
        """Live changes whose key the file has not changed since; and those it overrules. What the file says by now itself is no change."""
        good = {change.key: change for change in kept.changes if self._file.get(change.key) == change.over}
        overruled = [change for change in kept.changes if self._file.get(change.key) not in (change.over, change.value)]
        again = {change.key for change in overruled}
        return good, (*(change for change in kept.set_aside if change.key not in again), *overruled)

    def _over(self, file: Policy) -> Policy:
        """The file with the live changes over it."""
        if not self._changes:
            return file
        try:
            new = self._validated(patched(self._file, {change.key: change.value for change in self._changes.values()}))
            self._may_change(file, new)
        except PolicyError as error:
            raise PolicyError(f"the live changes in {FILE_NAME} in the state folder do not go with the policy file:\n{error}") from None
        return new

    # --- views ---

    @property
    def text(self) -> str:
        """The running policy as TOML, without what is default; it loads to the same version."""
        return render(deep(said(self.current)))

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(self._changes.values())

    @property
    def proposals(self) -> tuple[Proposal, ...]:
        """Those that wait and the last decided ones, oldest first."""
        return tuple(self._waiting.all)

    def origins(self) -> list[Origin]:
        """Every key with its value and where that comes from."""
        found = []
        for key, value in every(self.current).items():
            change, line = self._changes.get(key), self._lines.get(tuple(key.split(".")))
            if change is not None:
                found.append(Origin(key, value, "live", None, change.by, change.at, change.why))
            else:
                found.append(Origin(key, value, "default" if line is None and key not in self._file else "file", line))
        return found

    def rule_line(self, index: int) -> int | None:
        """The file's line of a rule; None where the rules are a live change."""
        return None if "rule" in self._changes else self._lines.get(("rule", index))

    def diff(self, proposal: Proposal) -> str:
        """What accepting it now would change, as a unified diff, not escaped. Raises PolicyError where it no longer fits."""
        now = said(self.current)
        new = self._validated(patched(now, proposal.changes))
        return difference(now, said(new), self.current.version, new.version)

    def status(self) -> dict[str, Any]:
        """For the daemon's status."""
        return {
            "policy_version": self.current.version,
            "policy_live_changes": sorted(self._changes),
            "policy_set_aside": [asdict(change) for change in self.set_aside],
            "policy_proposals": sum(proposal.state == "waiting" for proposal in self._waiting.all),
        }

    # --- changes ---

    def set(self, text: str, by: str, at: float, why: str = "", against: str | None = None) -> Policy:
        """Make a whole policy document the running one, at once. The file's own text takes all live changes back.

        against: the version that whoever asks has seen; where another one runs meanwhile, nothing changes.
        Raises PolicyError (no policy, or a key that cannot change live), PolicyRefused.
        """
        return self._replace(read(text, "the new policy").policy, by, at, why, against, self._waiting)

    def propose(self, changes: str | Mapping[str, Any], by: str, why: str, at: float) -> Proposal:
        """Ask for a change: TOML with the keys to change (arrays, `[[rule]]` too, whole), or dotted keys (None: out). It waits for a person.

        Raises PolicyError (what would come of it is no policy, or cannot change live), PolicyRefused (too many wait).
        """
        asked = changes_of(changes)
        new = self._validated(patched(said(self.current), asked))
        self._may_change(self.current, new)
        if new.version == self.current.version:
            raise PolicyError("the proposal changes nothing")
        for other in self._waiting.all:
            if (other.state, other.by, other.changes, other.against) == ("waiting", by, asked, self.current.version):
                return other
        self._waiting.room_for(by)
        proposal = Proposal(f"pp-{secrets.token_hex(5)}", by, why, at, asked, self.current.version, new.version)
        waiting = self._waiting.with_one(proposal)
        self._keep(self._changes, waiting, self.set_aside)
        self._waiting = waiting
        return proposal

    def accept(self, proposal_id: str, by: str, why: str, at: float, against: str | None = None) -> Policy:
        """Carry a proposal out on the policy that runs now. against: as in `set`. Raises PolicyError, PolicyRefused."""
        proposal = self._waiting.get(proposal_id)
        new = self._validated(patched(said(self.current), proposal.changes))
        decided = replace(proposal, state="accepted", decided_by=by, decided_at=at, reason=why)
        shown = f"proposal {proposal.id} of {proposal.by} ({proposal.why}): {why}"
        return self._replace(new, by, at, shown, against, self._waiting.with_one(decided))

    def reject(self, proposal_id: str, by: str, why: str, at: float) -> Proposal:
        """Raises PolicyRefused."""
        proposal = replace(self._waiting.get(proposal_id), state="rejected", decided_by=by, decided_at=at, reason=why)
        waiting = self._waiting.with_one(proposal)
        self._keep(self._changes, waiting, self.set_aside)
        self._waiting = waiting
        return proposal

    def _replace(self, new: Policy, by: str, at: float, why: str, against: str | None, waiting: Waiting) -> Policy:
        """Record, keep, replace, tell; in this order."""
        old = self.current
        if against is not None and against != old.version:
            raise PolicyRefused(f"the policy changed meanwhile: it is {old.version} now, not {against}; look again")
        self._may_change(self.current, new)
        flat_new, changes = said(new), {}
        for key in differing(self._file, flat_new):
            before = self._changes.get(key)
            value = flat_new.get(key)
            changes[key] = before if before is not None and before.value == value else Change(key, self._file.get(key), value, by, at, why)
        if self.record is not None:
            self.record(old, new, by, why)
        self._keep(changes, waiting, ())
        self._changes, self._waiting, self.set_aside, self.current = changes, waiting, (), new
        for listener in self.listeners:
            listener(old, new, by)
        return new

    @staticmethod
    def _may_change(old: Policy, new: Policy) -> None:
        fixed = [
            f"{key}: cannot change while Holdfast runs ({why}); change the file and restart"
            for key in differing(said(old), said(new))
            for name, why in FIXED.items()
            if key == name or key.startswith(name + ".")
        ]
        if fixed:
            raise PolicyError("\n".join(fixed))

    @staticmethod
    def _validated(document: Flat) -> Policy:
        return validate(Policy, deep(document), "the new policy")

    def _keep(self, changes: dict[str, Change], waiting: Waiting, set_aside: tuple[Change, ...]) -> None:
        if self._folder is not None:
            write_kept(self._folder, Kept(tuple(changes.values()), set_aside, tuple(waiting.all)))
