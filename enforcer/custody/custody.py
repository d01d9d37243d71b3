"""What the relay brings and what people say: the one way to the judges, the gate and the store."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from enforcer.custody.custodian import Custodian, StoreThread
from enforcer.custody.definitions import Definitions
from enforcer.custody.executor import Executor, Ticket
from enforcer.custody.items import item_of_arrival, item_of_request
from enforcer.custody.judging import Judges, Judging, Verdicts
from enforcer.custody.records import Records
from enforcer.custody.traffic import Arrival, Counters, Outgoing, Running
from escrow import answers, gate, jsonrpc
from escrow.answers import Why
from escrow.call import Call, Kind
from escrow.decision import Decision, Ruling, decide
from escrow.item import Item, Payload, State
from escrow.policy import Policy
from escrow.principal import Principal
from escrow.verdict import Finding, Verdict, unsure


@dataclass(frozen=True, slots=True)
class Lock:
    """The kill switch is on: who said so, why, and when (Unix seconds)."""

    by: str
    why: str
    at: float


class Custody:
    """See the package. One for each daemon."""

    def __init__(self, policy: Policy, server: str, store: Custodian, judges: Judges) -> None:
        self.policy, self.server = policy, server
        self.counters = Counters()
        self.records = Records()
        self.locked: Lock | None = None
        self._store = StoreThread(store)
        self._definitions = Definitions(server, self._store)
        self._judging = Judging(judges, self._definitions, lambda: self.locked is not None)
        self._executor = Executor(self._store, self._enter, self._count_release)
        self._running: dict[tuple[str, ...], list[Running]] = {}

    async def open(self) -> None:
        """Take over what an earlier daemon left: its clients are gone, so every undecided item is an orphan."""
        for item in await self._store(self._store.store.list_items, (State.HELD, State.APPROVED, State.DENIED), 1_000_000):
            if item.state is State.DENIED and item.deadline <= time.time():
                continue
            if not item.orphaned:
                item = replace(item, orphaned=True)
                await self._store(self._store.store.update, item)
            self._executor.adopt(item)
        await self._definitions.open()
        if (locked := await self._store(self._store.store.locked)) is not None:
            self.locked = Lock(*locked)

    def close(self) -> None:
        """After this nothing is read or written any more; what is under way is finished first."""
        self._executor.close()
        self._store.close()

    @property
    def lost(self) -> int:
        """Writes that failed in the background."""
        return self._executor.lost

    @property
    def recent(self) -> deque[dict[str, Any]]:
        return self.records.recent

    # --- what the relay brings: requests ---

    def ask_now(self, call: Call, request: jsonrpc.Request) -> Running | Outgoing | None:
        """A client's request came: `ask`, where it can be answered at once; None where it cannot."""
        if (refused := self._turned_away(call)) is not None:
            return refused
        if self._executor.known(call.identity) or any(run.orphaned for run in self._running.get(call.identity, ())):
            return None
        verdict = self._judging.leaving_at_once(request)
        if verdict is None or verdict.finding is not Finding.CLEAN:
            return None
        self.records.asked(call, (verdict,), "sent", "scanner only", None)
        return self._begin(call)

    async def ask(self, call: Call, request: jsonrpc.Request) -> Running | Ticket | Outgoing:
        """A client's request came.

        A `Ticket`: it is a retry, or its arguments are held: wait there and do not run it. An `Outgoing`: it is refused. A `Running`: send it to the server.
        """
        if (refused := self._turned_away(call)) is not None:
            return refused
        if (ticket := await self._retry(call, request)) is not None:
            return ticket
        verdict = self._judging.leaving_at_once(request) or await self._judging.leaving(request)
        decision = decide((verdict,), frozenset({verdict.judge}), self.policy.judging.on_hostile)
        if decision.ruling is Ruling.RELEASE:
            self.records.asked(call, (verdict,), "sent", decision.recorded, None)
            return self._begin(call)
        item = item_of_request(call, request, (verdict,), decision.ruling, self.policy)
        if not await self._keep(item, Payload(request.raw)):
            self.records.asked(call, (verdict,), "refused", "unrecorded", None)
            return self._executor.words(item, call.id, Why.DENIED)
        self.records.asked(call, (verdict,), item.state.value, decision.recorded, item.id)
        ticket = await self._executor.come(item.id, call.id, call, self._claim_at(time.monotonic()))
        return ticket if ticket is not None else self._executor.words(item, call.id, Why.EXPIRED)

    def _turned_away(self, call: Call) -> Outgoing | None:
        if self.locked is None:
            return None
        self.counters.turned_away += 1
        return Outgoing(answers.result_for(call.kind, Why.LOCKED, "", call.id), (), Why.LOCKED)

    async def _retry(self, call: Call, request: jsonrpc.Request) -> Ticket | None:
        """The ticket of an earlier, undelivered item for the same call, or of one that is about to be."""
        for item in await self._executor.standing(call.identity):
            # A denial stands for the exact call, whether or not its client was there to hear it.
            if item.state is State.DENIED or (item.orphaned and item.state in (State.HELD, State.APPROVED)):
                if item.holds == "request" and item.state is not State.DENIED and not await self._meta_is_clean(request):
                    continue
                if (ticket := await self._executor.come(item.id, call.id, call, self._claim_at(time.monotonic()))) is not None:
                    return ticket
        for running in tuple(self._running.get(call.identity, ())):
            if running.orphaned and not running.asked_client and not running.over:
                if running.settled is None:
                    running.settled = asyncio.get_running_loop().create_future()
                left = await asyncio.shield(running.settled)
                if left is not None and (ticket := await self._executor.come(left, call.id, call, self._claim_at(time.monotonic()))) is not None:
                    return ticket
        return None

    async def _meta_is_clean(self, request: jsonrpc.Request) -> bool:
        """What was approved is the call without its `_meta`, which is another's with every retry."""
        meta = {"_meta": request.params["_meta"]} if "_meta" in request.params else {}
        return (await self._judging.leaving(jsonrpc.Request(request.id, request.method, meta, request.raw))).finding is Finding.CLEAN

    def leaving_now(self, message: jsonrpc.Message) -> bool | None:
        """`leaving`, where it can be said at once."""
        verdict = self._judging.leaving_at_once(message)
        return True if verdict is not None and verdict.finding is Finding.CLEAN else None

    async def leaving(self, message: jsonrpc.Message, principal: Principal, session: str | None) -> bool:
        """A client's notification, or its answer to a server's request: whether it may go on."""
        verdict = self._judging.leaving_at_once(message) or await self._judging.leaving(message)
        if verdict.finding is Finding.CLEAN:
            return True
        self.counters.turned_away += 1
        self.records.left(message, self.server, principal, session, (verdict,))
        return False

    def _begin(self, call: Call) -> Running:
        running = Running(call)
        self._enter(running)
        return running

    def _enter(self, running: Running) -> None:
        self._running.setdefault(running.call.identity, []).append(running)

    def settle(self, running: Running, item_id: str | None = None) -> None:
        """The call is over: it left an item, or nothing."""
        if running.over:
            return
        running.over = True
        if running.settled is not None and not running.settled.done():
            running.settled.set_result(item_id)
        siblings = self._running.get(running.call.identity, [])
        if running in siblings:
            siblings.remove(running)
        if not siblings:
            self._running.pop(running.call.identity, None)

    def cancelled(self, call: Call) -> None:
        """Its client cancelled it: it may never be answered, so nobody is to wait for it."""
        for running in list(self._running.get(call.identity, ())):
            if running.call is call:
                self.settle(running)

    # --- what the relay brings: messages of the server's ---

    def receive_now(self, arrival: Arrival) -> Outgoing | None:
        """`receive`, where the message is clean by what can be said at once, and somebody is there to take it; else None."""
        if not arrival.connected:
            return None
        verdicts = self._judging.at_once(arrival)
        if verdicts is None:
            return None
        decision = self._ruled(verdicts)
        if decision.ruling is not Ruling.RELEASE or (self._definitions.listed(arrival) and not self._definitions.known(arrival.message.value)):  # type: ignore[union-attr]
            return None
        return self._release(arrival, verdicts, decision)

    async def receive(self, arrival: Arrival) -> Outgoing | Ticket:
        """Judge a message. An `Outgoing`: send it, now. A `Ticket`: it is held (or refused); wait there."""
        verdicts = await self._judging.whole(arrival)
        decision = self._ruled(verdicts)
        if decision.ruling is Ruling.RELEASE:
            if self._definitions.listed(arrival) and not await self._definitions.trust_first(arrival.message.value):  # type: ignore[union-attr]
                verdicts = (*verdicts, unsure("tools", "tools.unrecorded", "The tool definitions could not be recorded."))
                decision = self._ruled(verdicts)
            elif arrival.connected:
                return self._release(arrival, verdicts, decision)
        self.counters.judged += 1
        payload = Payload(arrival.message.raw, arrival.headers)
        item = item_of_arrival(arrival, payload, verdicts, decision.ruling, self.policy)
        if len(self._executor.entries) >= self.policy.escrow.max_items:
            self.records.judged(arrival, verdicts, "refused", "full", None)
            self.counters.refused += 1
            return self._executor.words(item, arrival.answer_id, Why.DENIED)
        if not await self._keep(item, payload):
            # Nothing is let through that could not be recorded: the client is told "denied", nothing is kept.
            self.records.judged(arrival, verdicts, "refused", "unrecorded", None)
            return self._executor.words(item, arrival.answer_id, Why.DENIED)
        if self._definitions.listed(arrival):
            self._executor.spawn(self._definitions.hold(arrival.message.value))  # type: ignore[union-attr]
        self.records.judged(arrival, verdicts, item.state.value, decision.recorded, item.id)
        if not arrival.connected and arrival.call is not None:  # nobody waits here; the same call made again collects it
            return Outgoing(None, (), Why.HELD, item.id)
        ticket = await self._executor.come(item.id, arrival.answer_id, arrival.call, self._claim_at(arrival.asked_at))
        return ticket if ticket is not None else self._executor.words(item, arrival.answer_id, Why.EXPIRED)

    def _ruled(self, verdicts: Verdicts) -> Decision:
        return decide(verdicts, frozenset(self.policy.judging.require), self.policy.judging.on_hostile)

    def _release(self, arrival: Arrival, verdicts: Verdicts, decision: Decision) -> Outgoing:
        self.records.judged(arrival, verdicts, "released", decision.recorded, None)
        self.counters.judged += 1
        self.counters.released += 1
        return Outgoing(arrival.message.raw, arrival.headers)

    def _count_release(self) -> None:
        self.counters.released += 1

    def unreadable(self, where: str) -> None:
        """A message was refused because it could not be read in one way only."""
        self.counters.unreadable += 1
        self.records.unreadable(where)

    # --- items ---

    def _claim_at(self, asked_at: float) -> float:
        return asked_at + self.policy.escrow.claim_after_s

    async def _keep(self, item: Item, payload: Payload) -> bool:
        """Write an item. Whether that worked."""
        try:
            await self._store(self._store.store.put, item, payload)
        except Exception:
            self.counters.refused += 1
            return False
        self._executor.adopt(item)
        self.counters.held += 1
        return True

    # --- what people say ---

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
        self.records.decided(decided)
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
        return self._told(await self._executor.decide(item_id, gate.Shredded(by, time.time())))

    def _told(self, item: Item) -> Item:
        self.records.decided(item)
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
        self.records.switched("locked", by, why)
        await self._store(self._store.store.lock, by, why, self.locked.at)
        return self.locked

    async def unlock(self, by: str, why: str) -> None:
        """Raises StoreFailed: it stays locked."""
        await self._store(self._store.store.unlock)
        self.records.switched("unlocked", by, why)
        self.locked = None

    async def items(self, states: tuple[State, ...], limit: int) -> list[Item]:
        return await self._store(self._store.store.list_items, states, limit)

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
        """Trust the definitions last offered. Returns how many."""
        return await self._definitions.trust(by)

    async def judge(self, message: jsonrpc.Message) -> Verdict:
        """What the scanner says of a message under the present policy (a replay, a redaction); changes nothing."""
        if isinstance(message, jsonrpc.Request) and self._judging.judges.request is not None:
            return await self._judging.leaving(message)
        return await self._judging.scan(message)

    def follow(self) -> asyncio.Queue[dict[str, Any]]:
        """A queue of decisions as they come; give it back to `unfollow`."""
        return self.records.follow()

    def unfollow(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        self.records.unfollow(queue)


def _lists_tools(item: Item) -> bool:
    return item.method == "tools/list" and item.holds == "result" and item.kind is Kind.LIST
