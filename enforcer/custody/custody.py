"""What the server sends, on its way to a client: released, held or refused."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from enforcer.custody.custodian import Custodian, StoreThread
from enforcer.custody.definitions import Definitions, begins, listed, without
from enforcer.custody.executor import Executor
from enforcer.custody.items import item_of_arrival
from enforcer.custody.judging import OUTCOMES, Heard, Judges, Judging, Verdicts, ruled
from enforcer.custody.people import Lock
from enforcer.custody.records import Outcome, Recorder, Records
from enforcer.custody.requests import Requests
from enforcer.custody.reverting import Reverting
from enforcer.custody.speculating import Speculating, sandboxed
from enforcer.custody.ticket import Ticket
from enforcer.custody.traffic import Arrival, Counters, Kept, Outgoing
from enforcer.custody.under_way import UnderWay
from enforcer.evidence import EvidenceError
from escrow import jsonrpc
from escrow.answers import Why
from escrow.call import Call, Kind
from escrow.decision import Decision, Ruling
from escrow.item import Item, Payload, State
from escrow.policy import Policy, ToolRules
from escrow.taint import sightings
from escrow.verdict import unsure


class Custody(Requests):
    """See the package. One for each daemon."""

    def __init__(self, policy: Policy, server: str, store: Custodian, judges: Judges, log: Recorder) -> None:
        thread, records = StoreThread(store), Records(log)
        self._reverting = Reverting(lambda: judges.clones, lambda: [running.call for running in self._under_way], self._writes)
        self._under_way = UnderWay(self._reverting.began)
        self.settle, self.leave = self._under_way.settle, self._under_way.leave
        definitions = Definitions(server, thread, records)
        judging = Judging(judges, definitions, lambda: self.locked is not None)
        super().__init__(
            policy,
            server,
            thread,
            definitions,
            judging,
            Executor(thread, records, self._prepare, self._under_way.enter, self._released, self._may_run),
            records,
            self._reverting,
        )
        self.counters = Counters()
        self._speculating = Speculating(lambda: self._judging.judges.twins, self._reverting.over)

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
        self._speculating.close()
        self._executor.close()
        self._store.close()

    def cancelled(self, call: Call) -> None:
        """Its client cancelled it."""
        self._under_way.cancelled(call)
        self._speculating.drop(call)

    def receive_now(self, arrival: Arrival) -> Outgoing | None:
        """`receive`, where the message is clean by what can be said at once, and somebody is there to take it; else None."""
        is_list = listed(arrival)
        if not arrival.connected or (is_list and len(arrival.message.raw) > _LARGE_LIST):
            return None
        if is_list:
            arrival = self._allowed(arrival)
        call = arrival.call
        rules = self.policy.for_call(arrival.server, *((arrival.tool, arrival.method) if call is None else (call.name, call.method)))
        heard = None if sandboxed(call, rules) else self._judging.at_once(arrival, rules)
        if heard is None:
            return None
        decision = ruled(heard.verdicts, rules)
        if decision.ruling is not Ruling.RELEASE or (is_list and not self._definitions.known(arrival.message)):
            return None
        try:
            return self._release(arrival, heard, decision)
        except EvidenceError:
            return None

    async def receive(self, arrival: Arrival) -> Outgoing | Ticket:
        """Judge a message. An `Outgoing`: send it, now. A `Ticket`: it is held (or refused); wait there."""
        given, policy = arrival, self.policy
        arrival = await asyncio.to_thread(self._allowed, given) if len(given.message.raw) > _LARGE_LIST else self._allowed(given)
        rules = policy.for_call(arrival.server, arrival.tool, arrival.method)
        if given.call is not None:
            self._reverting.answered(given.call)
        heard = await self._judging.whole(arrival, rules)
        call, report = arrival.call, None
        if call is not None and sandboxed(call, rules):
            verdict, report = await self._speculating.after(call, arrival.message.raw, rules)
            heard = heard._replace(verdicts=(*heard.verdicts, verdict))
            if self._under_way.is_left(call):  # while its twin ran
                arrival = arrival._replace(connected=False)
        if self.policy is not policy:  # another by now: what was judged by is over
            return await self.receive(given)
        verdicts, decision = heard.verdicts, ruled(heard.verdicts, rules)
        if decision.ruling is Ruling.RELEASE:
            if listed(arrival) and decision.would_have is None and not await self._definitions.trust_first(arrival.message, begins(arrival)):
                verdicts = (*verdicts, unsure("tools", "tools.unrecorded", "The tool definitions could not be recorded."))
                decision = Decision(Ruling.HOLD, "unsure")
            elif self.policy is not policy or self.locked is not None:  # meanwhile
                return await self.receive(given)
            elif arrival.connected:
                try:
                    return self._release(arrival, heard, decision)
                except EvidenceError:
                    verdicts = (*verdicts, unsure("evidence", "evidence.unrecorded", "Its release could not be recorded."))
                    decision = Decision(Ruling.HOLD, "unsure")
        return await self._hold(arrival, verdicts, decision, rules, report)

    async def _hold(self, arrival: Arrival, verdicts: Verdicts, decision: Decision, rules: ToolRules, report: str | None) -> Outgoing | Ticket:
        """Into escrow; clean, it only waits for its client to come back."""
        self.counters.judged += 1
        payload = Payload(arrival.message.raw, arrival.headers, sandbox=report)
        clone, no_clone = (None, "") if arrival.call is None else await self._reverting.settled(arrival.call)
        item = replace(item_of_arrival(arrival, payload, verdicts, decision.ruling, rules, self.policy.version), clone=clone, no_clone=no_clone)
        kept = None if self._full() else await self._keep(item, payload)
        if kept is None:
            # Nothing is let through that could not be recorded: the client is told "denied", nothing is kept.
            self.counters.refused += 1
            self._judged(arrival, verdicts, decision, "refused")
            return self._executor.words(item, arrival.answer_id, Why.DENIED)
        if listed(arrival):
            self._executor.spawn(self._definitions.hold(arrival.message))
        self._judged(arrival, verdicts, decision, OUTCOMES[decision.ruling], kept)
        if not arrival.connected and arrival.call is not None:  # nobody waits here; the same call made again collects it
            return Outgoing(None, (), Why.HELD, item.id)
        ticket = await self._executor.come(item.id, arrival.answer_id, arrival.call, arrival.asked_at + rules.claim_after_s)
        return ticket if ticket is not None else self._executor.words(item, arrival.answer_id, Why.EXPIRED)

    def _judged(self, arrival: Arrival, verdicts: Verdicts, decision: Decision, outcome: Outcome, kept: Kept | None = None) -> None:
        """What is kept back may stay so without evidence; that it is missing is counted."""
        try:
            self.records.judged(arrival, verdicts, decision, outcome, self.policy, kept)
        except EvidenceError:
            self._executor.lost += 1

    def _allowed(self, arrival: Arrival) -> Arrival:
        """A list of tools without those that the policy denies."""
        if not self.policy.tools.deny or not listed(arrival):
            return arrival
        return arrival._replace(message=without(arrival.message, self.policy.denies))

    def _release(self, arrival: Arrival, heard: Heard, decision: Decision) -> Outgoing:
        self.records.judged(arrival, heard.verdicts, decision, "released", self.policy)
        self.counters.judged += 1
        self.counters.released += 1
        self.counters.trialled += decision.would_have is not None
        self._judging.came(arrival.session or arrival.principal.text, arrival.call.name if arrival.call else "", heard.seen)
        return Outgoing(arrival.message.raw, arrival.headers)

    def _released(self, item: Item, raw: bytes) -> None:
        """Something held goes to a client."""
        self.counters.released += 1
        if item.clone is not None:
            self._reverting.forget(item.server, item.clone)
        self._executor.spawn(self._learn(item, raw))

    async def _learn(self, item: Item, raw: bytes) -> None:
        seen = await asyncio.to_thread(lambda: sightings(jsonrpc.parse(raw), asked=False))
        self._judging.came(item.session or item.principal, item.tool if item.kind is Kind.TOOL_CALL else "", seen)

    def unreadable(self, where: str) -> None:
        """A message was refused because it could not be read in one way only."""
        self.counters.unreadable += 1
        self.records.unreadable(where)


_LARGE_LIST = 64 * 1024
"""Larger lists of tools are cut in a thread."""
