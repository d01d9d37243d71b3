"""Entries: what is recorded, one frozen type for each kind of event, and the JSON members each becomes.

Pure. Every text has a bound here, because an attacker chooses tool names, and people write reasons. Bytes that may not stand in the
log (messages, arguments) are committed to with a salt (`escrow.evidence.commitment`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from escrow.evidence.commitment import Salts, commit
from escrow.verdict import Verdict

Value = str | int | float | bool | list["Value"] | Mapping[str, "Value"]
Members = dict[str, Value]

MAX_TEXT = 512
MAX_WHY = 2000
MAX_VERDICTS = 8
MAX_RULES = 32
MAX_TOOLS = 1000
MAX_CONTENT = 1 << 20
"""Bytes of a message that `content` writes; of a larger one only the commitment is kept."""


@dataclass(frozen=True, slots=True)
class Started:
    """The daemon started. version: Holdfast's; mode: enforce, proxy, observe; policy: the policy's version."""

    event: ClassVar = "started"
    version: str
    mode: str
    server: str
    policy: str
    pid: int

    def members(self, salts: Salts) -> Members:
        return {"mode": _text(self.mode), "pid": self.pid, "policy": _text(self.policy), "server": _text(self.server), "version": _text(self.version)}


@dataclass(frozen=True, slots=True)
class Stopped:
    """The daemon stopped cleanly. A `started` without a `stopped` before it followed a crash."""

    event: ClassVar = "stopped"
    why: str

    def members(self, salts: Salts) -> Members:
        return {"why": _text(self.why, MAX_WHY)}


@dataclass(frozen=True, slots=True)
class Enforcing:
    """From here on new connections reach the gate only."""

    event: ClassVar = "enforcing"
    why: str

    def members(self, salts: Salts) -> Members:
        return {"why": _text(self.why, MAX_WHY)}


@dataclass(frozen=True, slots=True)
class NotEnforcing:
    """Enforcement was lost."""

    event: ClassVar = "not-enforcing"
    why: str

    def members(self, salts: Salts) -> Members:
        return {"why": _text(self.why, MAX_WHY)}


class Judged(NamedTuple):
    """A message was judged, and what was ruled.

    direction: to-client for what a server sent, to-server for a call's arguments and other requests.
    kind: `escrow.call.Kind`'s value. args_sha256: hex digest of the call's canonical arguments, None where there is no call.
    message: the exact bytes judged. ruling: `escrow.decision.Ruling`'s value; recorded: the word it is shown as everywhere.
    item: the escrow id where it was held or refused. salt: that item's secret (see `enforcer.evidence`).
    content: write the message itself too, in base64 (policy `[evidence] content = true`); no shredding reaches it there.
    """

    direction: Literal["to-client", "to-server"]
    kind: str
    tool: str
    server: str
    principal: str
    session: str | None
    args_sha256: str | None
    message: bytes
    verdicts: tuple[Verdict, ...]
    ruling: str
    recorded: str
    policy: str
    item: str | None = None
    salt: bytes | None = None
    content: bool = False

    @property
    def event(self) -> str:
        return "judged"


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of a held item: a person's decision, or the clock's.

    state: `escrow.item.State`'s value after it. by: who; "clock" for a deadline. released: the exact bytes where an approval redacts.
    """

    event: ClassVar = "decided"
    item: str
    state: str
    by: str
    why: str
    tool: str
    principal: str
    policy: str
    released: bytes | None = None
    salt: bytes | None = None

    def members(self, salts: Salts) -> Members:
        found: Members = {
            "by": _text(self.by),
            "item": _text(self.item),
            "policy": _text(self.policy),
            "principal": _text(self.principal),
            "state": _text(self.state),
            "tool": _text(self.tool),
            "why": _text(self.why, MAX_WHY),
        }
        if self.released is not None:
            found["message"] = commit(salts.of(self.salt, self.event)[0], self.released)
            found["size"] = len(self.released)
        return found


@dataclass(frozen=True, slots=True)
class Reverted:
    """The state from before a held call is put back. outcome: begun before anything is changed; then done, or failed with why. changes: how many files."""

    event: ClassVar = "reverted"
    item: str
    outcome: Literal["begun", "done", "failed"]
    by: str
    why: str
    tool: str
    changes: int

    def members(self, salts: Salts) -> Members:
        return {
            "by": _text(self.by),
            "changes": self.changes,
            "item": _text(self.item),
            "outcome": self.outcome,
            "tool": _text(self.tool),
            "why": _text(self.why, MAX_WHY),
        }


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """The running policy changed. before, after: policy versions."""

    event: ClassVar = "policy"
    before: str
    after: str
    by: str
    why: str

    def members(self, salts: Salts) -> Members:
        return {"after": _text(self.after), "before": _text(self.before), "by": _text(self.by), "why": _text(self.why, MAX_WHY)}


@dataclass(frozen=True, slots=True)
class Locked:
    """The kill switch: every call is refused from here on."""

    event: ClassVar = "locked"
    by: str
    why: str

    def members(self, salts: Salts) -> Members:
        return {"by": _text(self.by), "why": _text(self.why, MAX_WHY)}


@dataclass(frozen=True, slots=True)
class Unlocked:
    """The kill switch was released."""

    event: ClassVar = "unlocked"
    by: str
    why: str

    def members(self, salts: Salts) -> Members:
        return {"by": _text(self.by), "why": _text(self.why, MAX_WHY)}


@dataclass(frozen=True, slots=True)
class Trusted:
    """Tool definitions were trusted. tools: (name, hex digest of the definition)."""

    event: ClassVar = "trusted"
    server: str
    tools: tuple[tuple[str, str], ...]
    by: str

    def members(self, salts: Salts) -> Members:
        named: list[Value] = [{"name": _text(name), "sha256": _text(digest)} for name, digest in self.tools[:MAX_TOOLS]]
        return {"by": _text(self.by), "count": len(self.tools), "server": _text(self.server), "tools": named}


@dataclass(frozen=True, slots=True)
class TokenChanged:
    """A supervisor's token was made or revoked. token: its name or id, never the token."""

    event: ClassVar = "token"
    change: Literal["made", "revoked"]
    token: str
    scope: str
    by: str
    acts_as: str | None = None

    def members(self, salts: Salts) -> Members:
        found: Members = {"by": _text(self.by), "change": self.change, "scope": _text(self.scope), "token": _text(self.token)}
        if self.acts_as is not None:
            found["acts_as"] = _text(self.acts_as)
        return found


@dataclass(frozen=True, slots=True)
class CanaryChanged:
    """A canary was made or removed. canary: its name, never the token itself."""

    event: ClassVar = "canary"
    change: Literal["made", "removed"]
    canary: str
    by: str

    def members(self, salts: Salts) -> Members:
        return {"by": _text(self.by), "canary": _text(self.canary), "change": self.change}


@dataclass(frozen=True, slots=True)
class Lost:
    """Records that are known to be missing. what: `evidence` for this log's own torn tail, else the place that lost them. count: in `unit`."""

    event: ClassVar = "loss"
    what: str
    count: int
    why: str
    unit: Literal["records", "bytes"] = "records"

    def members(self, salts: Salts) -> Members:
        return {"count": self.count, "unit": self.unit, "what": _text(self.what), "why": _text(self.why, MAX_WHY)}


@dataclass(frozen=True, slots=True)
class Observed:
    """A message that the taps saw and that was judged after the fact. Nothing was held.

    trace: W3C trace id, 32 hex digits (`escrow.trace`). pid, process: whose it was, where that is known. kind: a word of ours.
    complete: whether every byte was seen. content: audit mode, as in `Judged`.
    """

    event: ClassVar = "observed"
    trace: str
    direction: Literal["to-client", "to-server"]
    kind: str
    method: str
    tool: str
    pid: int | None
    process: str
    connection: str
    message: bytes
    complete: bool
    verdicts: tuple[Verdict, ...]
    content: bool = False

    def members(self, salts: Salts) -> Members:
        found: Members = {
            "complete": self.complete,
            "connection": _text(self.connection),
            "direction": self.direction,
            "kind": _text(self.kind),
            "message": commit(salts.of(None, self.event)[0], self.message),
            "method": _text(self.method),
            "process": _text(self.process),
            "size": len(self.message),
            "tool": _text(self.tool),
            "trace": _text(self.trace),
            "verdicts": [_verdict(verdict) for verdict in self.verdicts[:MAX_VERDICTS]],
        }
        if self.pid is not None:
            found["pid"] = self.pid
        if self.content and len(self.message) <= MAX_CONTENT:
            found["content"] = base64.b64encode(self.message).decode()
        return found


@dataclass(frozen=True, slots=True)
class Bypassed:
    """Something passed the gate by, or may have. certain: False where the taps could not tell. what, where: in our words."""

    event: ClassVar = "bypass"
    certain: bool
    what: str
    where: str
    message: bytes = b""

    def members(self, salts: Salts) -> Members:
        found: Members = {"certain": self.certain, "what": _text(self.what), "where": _text(self.where)}
        if self.message:
            found["message"] = commit(salts.of(None, self.event)[0], self.message)
            found["size"] = len(self.message)
        return found


Rare = (
    Started
    | Stopped
    | Enforcing
    | NotEnforcing
    | Decided
    | Reverted
    | PolicyChanged
    | Locked
    | Unlocked
    | Trusted
    | TokenChanged
    | CanaryChanged
    | Lost
    | Observed
    | Bypassed
)
"""All but `Judged`, of which there is one for every message: `escrow.evidence.canonical` writes that one out by hand."""

Event = Judged | Rare


def _text(text: str, bound: int = MAX_TEXT) -> str:
    return text if len(text) <= bound else text[:bound]


def _verdict(verdict: Verdict) -> Members:
    rules: list[Value] = [_text(rule) for rule in list(dict.fromkeys(reason.rule for reason in verdict.reasons))[:MAX_RULES]]
    return {"finding": verdict.finding.value, "judge": _text(verdict.judge), "rules": rules, "score": score_number(verdict.score)}


def score_number(score: float) -> float | int:
    """Four decimals, within 0 to 1. Such numbers look the same in Python's JSON and in RFC 8785's; 0 and 1 are written as integers."""
    ten_thousandths = 10_000 if score >= 1 else round(score * 10_000) if score > 0 else 0  # no number at all counts as 0
    return ten_thousandths // 10_000 if ten_thousandths % 10_000 == 0 else ten_thousandths / 10_000
