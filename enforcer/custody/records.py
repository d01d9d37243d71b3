"""The place that every decision passes before it takes effect, and where it is told to whoever follows.

What cannot be recorded raises `EvidenceError`; what depended on it must not happen then.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from enforcer.custody.traffic import Arrival, Kept
from escrow import jsonrpc
from escrow.call import Call
from escrow.decision import Decision
from escrow.evidence.entry import (
    Bypassed,
    CanaryChanged,
    Decided,
    Event,
    Judged,
    Locked,
    Lost,
    Observed,
    PolicyChanged,
    Reverted,
    TokenChanged,
    Trusted,
    Unlocked,
)
from escrow.item import Item, verdict_json
from escrow.policy import Policy
from escrow.supervisor.arguments import VerdictQuery
from escrow.verdict import Finding, Reason, Verdict, worst

Verdicts = tuple[Verdict, ...]
Who = tuple[str, str, str | None]
"""Server, principal, session."""

Outcome = Literal["released", "sent", "held", "approved", "denied", "refused"]


class Recorder(Protocol):
    """The part of the evidence log that custody uses; `enforcer.evidence.EvidenceLog` is one."""

    def record(self, event: Event) -> Any: ...
    async def synced(self, position: Any) -> None: ...


class Passed(NamedTuple):
    """A message that was judged, as it is kept for views: its record is made when somebody looks. position: its entry's."""

    position: int
    at: float
    outcome: Outcome
    recorded: str
    item: str | None
    direction: str
    kind: str
    tool: str
    server: str
    principal: str
    session: str | None
    verdicts: Verdicts

    def shown(self) -> dict[str, Any]:
        record = self._asdict()
        record["id"] = str(record.pop("position") - 1)
        return record


class Records:
    """See the module."""

    def __init__(self, log: Recorder) -> None:
        self._recent: deque[dict[str, Any] | Passed] = deque(maxlen=1000)
        self._log = log
        self._followers: set[asyncio.Queue[dict[str, Any]]] = set()
        self._decided: dict[str, int] = {}
        """Item → its decision's entry, until that is told."""

    @property
    def recent(self) -> list[dict[str, Any]]:
        """The last thousand, oldest first; the id of each is the number of its entry in the log."""
        return [one.shown() if isinstance(one, Passed) else one for one in self._recent]

    def judged(self, arrival: Arrival, verdicts: Verdicts, decision: Decision, outcome: Outcome, policy: Policy, kept: Kept | None = None) -> None:
        """A message that came back. kept: as which item it stands in escrow."""
        call = arrival.call
        args, tool = (None, arrival.tool) if call is None else (call.args_sha256, call.name)
        who = (arrival.server, arrival.principal.text, arrival.session)
        self._judged("to-client", arrival.kind._value_, tool, who, args, arrival.message.raw, verdicts, decision, outcome, policy, kept)

    def asked(self, call: Call, raw: bytes, verdicts: Verdicts, decision: Decision, outcome: Outcome, policy: Policy, kept: Kept | None = None) -> None:
        """A call that is to go out."""
        who = (call.server, call.principal.text, call.session)
        self._judged("to-server", call.kind._value_, call.name, who, call.args_sha256, raw, verdicts, decision, outcome, policy, kept)

    def said(self, message: jsonrpc.Message, who: Who, verdicts: Verdicts, decision: Decision, outcome: Outcome, policy: Policy) -> None:
        """A client's notification, or its answer to the server."""
        kind = "notification" if isinstance(message, jsonrpc.Notification) else "answer"
        self._judged("to-server", kind, getattr(message, "method", "response"), who, None, message.raw, verdicts, decision, outcome, policy, None)

    async def decided(self, item: Item, by: str, why: str, released: bytes | None, salt: bytes | None) -> None:
        """What is to become of an item; synced when this returns."""
        position = self._log.record(Decided(item.id, item.state.value, by, why, item.tool, item.principal, item.policy_version, released, salt))
        self._decided[item.id] = position
        while len(self._decided) > 1000:  # those that nobody tells of
            del self._decided[next(iter(self._decided))]
        await self._log.synced(position)

    async def reverted(self, item: Item, outcome: Literal["begun", "done", "failed"], by: str, why: str, changes: int) -> None:
        """The state from before its call is put back; synced when this returns."""
        position = self._log.record(Reverted(item.id, outcome, by, why, item.tool, changes))
        self._publish(position, {"outcome": f"revert {outcome}", "item": item.id, "by": by, "tool": item.tool, "reason": why})
        await self._log.synced(position)

    def delivered(self, item: Item) -> None:
        """A client's TCP has acknowledged all of it."""
        self._log.record(Decided(item.id, item.state.value, "client", "", item.tool, item.principal, item.policy_version))

    def told(self, item: Item) -> None:
        """For whoever follows: a decision that has been recorded and taken."""
        position = self._decided.pop(item.id, None)
        self._publish(position, {"outcome": item.state.value, "item": item.id, "by": item.decided_by, "tool": item.tool, "reason": item.reason})

    def unreadable(self, where: str) -> None:
        """A message that cannot be read in one way only."""
        self._publish(None, {"outcome": "refused", "recorded": "unreadable", "where": where})

    async def switched(self, on: bool, by: str, why: str) -> None:
        """The kill switch is used; synced when this returns."""
        position = self._log.record(Locked(by, why) if on else Unlocked(by, why))
        self._publish(position, {"outcome": "locked" if on else "unlocked", "by": by, "reason": why})
        await self._log.synced(position)

    async def trusted(self, server: str, tools: list[tuple[str, str, str]], by: str) -> None:
        """Tool definitions are to be trusted; synced when this returns."""
        await self._log.synced(self._log.record(Trusted(server, tuple((name, digest) for name, digest, _ in tools), by)))

    async def canary_changed(self, change: Literal["made", "removed"], canary: str, by: str) -> None:
        """A canary is to be watched for, or no more; synced when this returns."""
        await self._log.synced(self._log.record(CanaryChanged(change, canary, by)))

    async def credentialed(self, change: Literal["made", "revoked"], token: str, scope: str, by: str, acts_as: str | None) -> None:
        """A supervisor's token is made or revoked; synced when this returns."""
        position = self._log.record(TokenChanged(change, token, scope, by, acts_as))
        self._publish(position, {"outcome": f"token {change}", "by": by, "reason": f"{token} ({scope})"})
        await self._log.synced(position)

    def governed(self, before: Policy, after: Policy, by: str, why: str) -> None:
        """The policy changes."""
        position = self._log.record(PolicyChanged(before.version, after.version, by, why))
        self._publish(position, {"outcome": "policy changed", "by": by, "reason": why, "before": before.version, "after": after.version})

    def observed(self, seen: Observed) -> None:
        """A message that the taps saw and that was judged after the fact."""
        position = self._log.record(seen)
        shown = {"outcome": "observed", "direction": seen.direction, "kind": seen.kind, "method": seen.method[:512], "tool": seen.tool[:512]}
        who = {"pid": seen.pid, "process": seen.process, "connection": seen.connection, "trace": seen.trace, "complete": seen.complete}
        self._publish(position, {**shown, **who, "verdicts": seen.verdicts})

    def bypassed(self, found: Bypassed) -> None:
        """Something passed the gate by, or it cannot be told whether."""
        position = self._log.record(found)
        self._publish(position, {"outcome": "bypass" if found.certain else "unsure", "reason": found.what, "where": found.where})

    def overlooked(self, lost: Lost) -> None:
        """Something was seen that nobody could judge."""
        position = self._log.record(lost)
        self._publish(position, {"outcome": "lost", "where": lost.what, "reason": f"{lost.count} {lost.unit}: {lost.why}"})

    def recall(self, entries: list[dict[str, Any] | None]) -> None:
        """What an earlier daemon recorded, as the log's members, so that views go back beyond this one's start."""
        for entry in entries:
            if entry is not None and (record := shown_entry(entry)) is not None:
                self._recent.append(record)

    def follow(self) -> asyncio.Queue[dict[str, Any]]:
        """A queue of decisions as they come; give it back to `unfollow`."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1000)
        self._followers.add(queue)
        return queue

    def unfollow(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        self._followers.discard(queue)

    def page(self, query: VerdictQuery) -> tuple[list[dict[str, Any]], str | None]:
        """Records that fit, newest first, and the cursor of the next page. Raises KeyError: no such cursor."""
        below = None
        if query.cursor is not None:
            if not query.cursor.isdecimal() or len(query.cursor) > 18:
                raise KeyError(query.cursor)
            below = int(query.cursor)
        found: list[dict[str, Any]] = []
        # Not in the order in which they were told: a decision is recorded before it is taken, and told after.
        for record in sorted((record for record in self.recent if record["id"]), key=lambda record: int(record["id"]), reverse=True):
            if (below is None or int(record["id"]) < below) and _fits(record, query):
                if len(found) == query.limit:
                    return found, found[-1]["id"]
                found.append(record)
        return found, None

    def find(self, record_id: str) -> dict[str, Any] | None:
        return next((record for record in self.recent if record["id"] == record_id), None)

    def _judged(
        self,
        direction: Literal["to-client", "to-server"],
        kind: str,
        tool: str,
        who: Who,
        args_sha256: str | None,
        raw: bytes,
        verdicts: Verdicts,
        decision: Decision,
        outcome: Outcome,
        policy: Policy,
        kept: Kept | None,
    ) -> None:
        server, principal, session = who  # `_value_`: what `value` gives, which is looked up through two functions
        item, secret = (None, None) if kept is None else (kept.item_id, kept.secret)
        ruling, recorded = decision.ruling._value_, decision.recorded
        position = self._log.record(
            Judged(
                direction, kind, tool, server, principal, session, args_sha256, raw, verdicts, ruling, recorded, policy.version, item, secret,
                policy.evidence.content,
            )
        )  # fmt: skip
        passed = Passed(position, time.time(), outcome, recorded, item, direction, kind, tool[:512], server, principal, session, verdicts)
        self._recent.append(passed)
        if self._followers:
            self._tell(passed.shown())

    def _publish(self, position: int | None, record: dict[str, Any]) -> None:
        """id: the number of its entry, from 0; empty for what has none of its own."""
        record["id"] = "" if position is None else str(position - 1)
        record["at"] = time.time()
        self._recent.append(record)
        self._tell(record)

    def _tell(self, record: dict[str, Any]) -> None:
        for queue in self._followers:
            if not queue.full():
                queue.put_nowait(record)


def _fits(record: dict[str, Any], query: VerdictQuery) -> bool:
    at = record["at"]
    return (
        (query.since is None or at >= query.since)
        and (query.until is None or at < query.until)
        and (query.tool is None or record.get("tool") == query.tool)
        and (query.session is None or record.get("session") == query.session)
        and (query.finding is None or (bool(record.get("verdicts")) and worst(record["verdicts"]) is query.finding))
    )


def shown_entry(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """An entry of the log as a record; None where it is none of those that are shown."""
    at = datetime.fromisoformat(entry["at"]).timestamp()
    base = {"id": str(entry["seq"]), "at": at}
    match entry["event"]:
        case "observed":
            copied = {key: entry.get(key) for key in ("direction", "kind", "method", "tool", "pid", "process", "connection", "trace", "complete")}
            return {**base, "outcome": "observed", **copied, "verdicts": _recalled(entry)}
        case "bypass":
            return {**base, "outcome": "bypass" if entry["certain"] else "unsure", "reason": entry["what"], "where": entry["where"]}
        case "judged":
            outcome, verdicts = _SHOWN[entry["direction"], entry["ruling"]], _recalled(entry)
            copied = {key: entry.get(key) for key in ("recorded", "item", "direction", "kind", "tool", "server", "principal", "session")}
            return {**base, "outcome": outcome, **copied, "verdicts": verdicts}
        case "decided" if entry["by"] != "client":
            return {**base, "outcome": entry["state"], "item": entry["item"], "by": entry["by"], "tool": entry["tool"], "reason": entry["why"]}
        case "reverted":
            return {**base, "outcome": f"revert {entry['outcome']}", "item": entry["item"], "by": entry["by"], "tool": entry["tool"], "reason": entry["why"]}
        case "locked" | "unlocked":
            return {**base, "outcome": entry["event"], "by": entry["by"], "reason": entry["why"]}
        case "policy":
            return {**base, "outcome": "policy changed", "by": entry["by"], "reason": entry["why"], "before": entry["before"], "after": entry["after"]}
    return None


def _recalled(entry: Mapping[str, Any]) -> Verdicts:
    return tuple(
        Verdict(said["judge"], Finding(said["finding"]), said["score"], tuple(Reason(rule, "") for rule in said["rules"])) for said in entry["verdicts"]
    )


_SHOWN: dict[tuple[str, str], Outcome] = {
    ("to-client", "release"): "released",
    ("to-server", "release"): "sent",
    ("to-client", "hold"): "held",
    ("to-server", "hold"): "held",
    ("to-client", "refuse"): "denied",
    ("to-server", "refuse"): "refused",
}


def record_json(record: dict[str, Any]) -> str:
    """A published decision as one line of JSON."""
    return json.dumps({**record, "verdicts": [verdict_json(verdict) for verdict in record.get("verdicts", ())]})
