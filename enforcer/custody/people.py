"""What people say of what is held, and what they may see: the part of custody that the control socket speaks to."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

from enforcer.custody.custodian import StoreFailed, StoreThread
from enforcer.custody.definitions import Definitions
from enforcer.custody.executor import Executor
from enforcer.custody.judging import Judging
from enforcer.custody.records import Records
from enforcer.custody.reverting import Answer, Reverting
from enforcer.evidence import EvidenceError
from escrow import gate, jsonrpc
from escrow.call import Kind
from escrow.item import Item, Payload, State
from escrow.policy import Policy, ToolRules
from escrow.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Lock:
    """The kill switch is on: who said so, why, and when (Unix seconds)."""

    by: str
    why: str
    at: float


class People:
    """See the module. policy: the running one; whoever changes it sets it here. locked: the kill switch."""

    def __init__(
        self,
        policy: Policy,
        server: str,
        store: StoreThread,
        definitions: Definitions,
        judging: Judging,
        executor: Executor,
        records: Records,
        reverting: Reverting,
    ) -> None:
        self.policy, self.server, self.records = policy, server, records
        self.locked: Lock | None = None
        self._store, self._definitions, self._judging, self._executor, self._reverting = store, definitions, judging, executor, reverting

    @property
    def lost(self) -> int:
        """Writes that failed in the background."""
        return self._executor.lost

    @property
    def recent(self) -> list[dict[str, Any]]:
        return self.records.recent

    async def approve(self, item_id: str, by: str, why: str, result_sha256: str, released: bytes | None = None) -> Item:
        """Raises gate.DecisionRefused, KeyError (no such item), StoreFailed."""
        item = await self._known(item_id)
        if self.locked is not None:
            raise gate.DecisionRefused("the server is locked: unlock it first")
        if released is not None and item.holds == "request":
            raise gate.DecisionRefused("a held call cannot be redacted: deny it, and have it made otherwise")
        digest = None if released is None else hashlib.sha256(released).hexdigest()
        wanted = item.state is State.HELD and (released is not None or _lists_tools(item))
        payload = await self.payload(item_id) if wanted else None
        if released is not None and payload is not None:
            await self._store(self._store.store.replace_payload, item, replace(payload, released=released))
        decided = await self._executor.decide(item_id, gate.Approved(by, why, time.time(), result_sha256, digest))
        self.records.told(decided)
        if _lists_tools(decided) and payload is not None:
            await self._definitions.approved(payload.raw if released is None else released, by)
        return decided

    async def deny(self, item_id: str, by: str, why: str) -> Item:
        """Raises gate.DecisionRefused, KeyError (no such item), StoreFailed."""
        await self._known(item_id)
        return self._told(await self._executor.decide(item_id, gate.Denied(by, why, time.time())))

    async def shred(self, item_id: str, by: str) -> Item:
        """Raises KeyError (no such item), StoreFailed."""
        item = await self.item(item_id)
        if _lists_tools(item) and (payload := await self.payload(item_id)) is not None:
            await self._definitions.shredded(payload.raw)
        await self._known(item_id)
        shredded = self._told(await self._executor.decide(item_id, gate.Shredded(by, time.time())))
        if item.clone is not None:
            self._reverting.forget(item.server, item.clone)
        return shredded

    async def revert(self, item_id: str, by: str, why: str, do: bool) -> Answer:
        """Put the state back that a denied call found, or say what that would change. Raises gate.DecisionRefused, KeyError (no such item), StoreFailed."""
        item = await self.item(item_id)
        if (no := _no_way_back(item)) is not None:
            raise gate.DecisionRefused(no)
        assert item.clone is not None
        plan = await self._reverting.ask(item.server, "plan", item.clone)
        if plan.why and not plan.done:
            raise gate.DecisionRefused(plan.why)
        if not do:
            return plan
        if self._reverting.busy(item.server):
            raise gate.DecisionRefused("a call runs on this server now: wait, or holdfast lock first")
        count = len(plan.changes) + plan.more
        await self._noted(item, "begun", by, why, count)
        if not plan.done:  # else it was cut off after it had ended, and before that could be written
            plan = await self._reverting.ask(item.server, "revert", item.clone)
        if plan.why and not plan.done:
            await self._noted(item, "failed", by, plan.why, count)
            raise gate.DecisionRefused(plan.why)
        await self._noted(item, "done", by, why, count)
        await self._executor.amend(item, lambda now: replace(now, reverted_by=by, reverted_at=time.time()))
        return plan

    async def _noted(self, item: Item, outcome: Literal["begun", "done", "failed"], by: str, why: str, changes: int) -> None:
        try:
            await self.records.reverted(item, outcome, by, why, changes)
        except EvidenceError as error:
            raise StoreFailed(str(error)) from None

    def _told(self, item: Item) -> Item:
        self.records.told(item)
        return item

    async def _known(self, item_id: str) -> Item:
        """Make sure an entry exists for an item that the store has. Raises KeyError."""
        if (entry := self._executor.entries.get(item_id)) is not None:
            return entry.item
        item = await self.item(item_id)
        self._executor.look_at(item)
        return item

    async def lock(self, by: str, why: str) -> Lock:
        """Refuse every call from now on, and hold whatever still comes. Raises StoreFailed: it holds for now, but not over a restart."""
        self.locked = Lock(by, why, time.time())
        await self._switched(True, by, why)
        await self._store(self._store.store.lock, by, why, self.locked.at)
        return self.locked

    async def unlock(self, by: str, why: str) -> None:
        """Raises StoreFailed: it stays locked."""
        await self._switched(False, by, why)
        await self._store(self._store.store.unlock)
        self.locked = None

    async def _switched(self, on: bool, by: str, why: str) -> None:
        try:
            await self.records.switched(on, by, why)
        except EvidenceError as error:
            raise StoreFailed(str(error)) from None

    async def token_changed(self, change: Literal["made", "revoked"], token: str, scope: str, by: str, acts_as: str | None) -> None:
        """A supervisor's token is to be issued, or is revoked. Raises StoreFailed."""
        try:
            await self.records.credentialed(change, token, scope, by, acts_as)
        except EvidenceError as error:
            raise StoreFailed(str(error)) from None

    async def canary_changed(self, change: Literal["made", "removed"], canary: str, by: str) -> None:
        """A canary is to be watched for, or no more. Raises StoreFailed."""
        try:
            await self.records.canary_changed(change, canary, by)
        except EvidenceError as error:
            raise StoreFailed(str(error)) from None

    def policy_changing(self, before: Policy, after: Policy, by: str, why: str) -> None:
        """Another policy is to run. Raises StoreFailed: the one before goes on."""
        try:
            self.records.governed(before, after, by, why)
        except EvidenceError as error:
            raise StoreFailed(str(error)) from None

    async def items(self, states: tuple[State, ...], limit: int, before: tuple[float, str] | None = None) -> list[Item]:
        """Oldest first, the newest `limit` of them; before: (held_at, id) of the item that they are older than."""
        return await self._store(self._store.store.list_items, states, limit, before)

    async def item(self, item_id: str) -> Item:
        """Raises KeyError."""
        item = await self._store(self._store.store.get, item_id)
        if item is None:
            raise KeyError(item_id)
        return item

    async def payload(self, item_id: str) -> Payload | None:
        return await self._store(self._store.store.payload, item_id)

    async def counts(self) -> dict[str, int]:
        return await self._store(self._store.store.counts)

    async def tools(self) -> list[dict[str, Any]]:
        return await self._definitions.shown()

    async def trust(self, by: str) -> int:
        """Trust the definitions last offered. Returns how many. Raises StoreFailed."""
        try:
            return await self._definitions.trust(by)
        except EvidenceError as error:
            raise StoreFailed(str(error)) from None

    async def judge(self, message: jsonrpc.Message) -> Verdict:
        """What the scanner says of a message under the present policy (a replay, a redaction); changes nothing."""
        if isinstance(message, jsonrpc.Request) and self._judging.judges.request is not None:
            return (await self._judging.leaving(message, self._rules_of(message), "")).verdicts[0]
        return (await self._judging.scan(message)).verdict

    def follow(self) -> asyncio.Queue[dict[str, Any]]:
        """A queue of decisions as they come; give it back to `unfollow`."""
        return self.records.follow()

    def unfollow(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        self.records.unfollow(queue)

    def _rules_of(self, message: jsonrpc.Message) -> ToolRules:
        method = getattr(message, "method", "response")
        return self.policy.for_call(self.server, method, method)


def _no_way_back(item: Item) -> str | None:
    """Why the state from before an item's call cannot be put back; None where it can."""
    if item.holds == "request":
        return "the call has not run: there is nothing to put back"
    if item.reverted_at is not None:
        return f"it has been put back already, by {item.reverted_by}"
    if item.state not in (State.DENIED, State.EXPIRED, State.ABANDONED):
        return f"it is {item.state.value}: deny it first" if item.state is State.HELD else f"it is {item.state.value}: only what was denied is put back"
    if item.clone is None:
        return item.no_clone or "no clone of the state was kept before the call: `revert` in [servers.NAME.sandbox], and an irreversible tool"
    return None


def _lists_tools(item: Item) -> bool:
    return item.method == "tools/list" and item.holds == "result" and item.kind is Kind.LIST
