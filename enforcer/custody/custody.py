"""What the relay brings: requests on their way to the server, messages on their way back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from enforcer.custody.custodian import Custodian, StoreThread
from enforcer.custody.definitions import Definitions, begins, listed, without
from enforcer.custody.executor import Executor, Ticket
from enforcer.custody.items import item_of_arrival, item_of_request
from enforcer.custody.judging import Heard, Judges, Judging, Verdicts
from enforcer.custody.people import Lock, People
from enforcer.custody.records import Outcome, Recorder, Records
from enforcer.custody.traffic import Arrival, Counters, Kept, Outgoing, Running
from enforcer.custody.under_way import UnderWay
from enforcer.evidence import EvidenceError
from escrow import answers, jsonrpc
from escrow.answers import Why
from escrow.call import Call, Kind
from escrow.decision import Decision, Ruling, decide, decide_arguments
from escrow.item import Item, Payload, State
from escrow.policy import Policy, ToolRules
from escrow.principal import Principal
from escrow.taint import sightings
from escrow.verdict import unsure


class Custody(People):
    """See the package. One for each daemon."""

    def __init__(self, policy: Policy, server: str, store: Custodian, judges: Judges, log: Recorder) -> None:
        thread, records = StoreThread(store), Records(log)
        self._under_way = UnderWay()
        self.settle, self.cancelled = self._under_way.settle, self._under_way.cancelled
        definitions = Definitions(server, thread, records)
        judging = Judging(judges, definitions, lambda: self.locked is not None)
        super().__init__(policy, server, thread, definitions, judging, Executor(thread, records, self._under_way.enter, self._released, self._may_run), records)
        self.counters = Counters()

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

    # --- what the relay brings: requests ---

    def ask_now(self, call: Call, request: jsonrpc.Request) -> Running | Outgoing | None:
        """A client's request came: `ask`, where it can be answered at once; None where it cannot."""
        rules = self.policy.for_call(call.server, call.name, call.method)
        if (refused := self._turned_away(call, request, rules)) is not None:
            return refused
        if self._executor.known(call.identity) or self._under_way.has_orphan(call):
            return None
        heard = self._judging.leaving_at_once(request, rules, memory_of(call), call.name)
        if heard is None:
            return None
        decision = decide_arguments(heard.verdicts, rules.outgoing, rules.taint)
        if decision.ruling is not Ruling.RELEASE or not self._sent(call, request, heard, decision):
            return None
        return self._under_way.begin(call)

    async def ask(self, call: Call, request: jsonrpc.Request) -> Running | Ticket | Outgoing:
        """A client's request came.

        A `Ticket`: it is a retry, or its arguments are held: wait there and do not run it. An `Outgoing`: it is refused. A `Running`: send it to the server.
        """
        policy = self.policy
        rules = policy.for_call(call.server, call.name, call.method)
        if (refused := self._turned_away(call, request, rules)) is not None:
            return refused
        if (ticket := await self._retry(call, request, rules)) is not None:
            return ticket
        heard = await self._judging.leaving(request, rules, memory_of(call), call.name)
        if self.policy is not policy or self.locked is not None:  # meanwhile: what was judged by is over
            return await self.ask(call, request)
        verdicts, decision = heard.verdicts, decide_arguments(heard.verdicts, rules.outgoing, rules.taint)
        if decision.ruling is Ruling.RELEASE:
            if self._sent(call, request, heard, decision):
                return self._under_way.begin(call)
            self.counters.turned_away += 1
            return Outgoing(answers.result_for(call.kind, Why.DENIED, "", call.id, of_request=True), (), Why.DENIED)
        item = item_of_request(call, request, verdicts, decision.ruling, rules, self.policy.version)
        kept = None if self._full() else await self._keep(item, Payload(request.raw))
        if kept is None:
            self.counters.turned_away += 1
            self._asked(call, request, verdicts, decision, "refused")
            return Outgoing(answers.result_for(call.kind, Why.DENIED, "", call.id, of_request=True), (), Why.DENIED)
        self._asked(call, request, verdicts, decision, _OUTCOMES[decision.ruling], kept)
        ticket = await self._executor.come(item.id, call.id, call, time.monotonic() + rules.claim_after_s)
        return ticket if ticket is not None else self._executor.words(item, call.id, Why.EXPIRED)

    def _turned_away(self, call: Call, request: jsonrpc.Request, rules: ToolRules) -> Outgoing | None:
        """Refused without being held: by the kill switch, or because the policy does not allow the tool, or so large a request for it."""
        if self.locked is not None:
            why = Why.LOCKED
        elif rules.denied is not None or len(request.raw) > rules.request_bytes:
            why = Why.FORBIDDEN
        else:
            return None
        self.counters.turned_away += 1
        self._asked(call, request, (), Decision(Ruling.REFUSE, "not judged"), "refused")
        return Outgoing(answers.result_for(call.kind, why, "", call.id), (), why)

    def _may_run(self, call: Call) -> bool:
        """Of a call that was held and approved: a lock, or a policy that denies the tool, may have come since."""
        return self.locked is None and self.policy.for_call(call.server, call.name, call.method).denied is None

    def _sent(self, call: Call, request: jsonrpc.Request, heard: Heard, decision: Decision) -> bool:
        """It may go on. Whether that could be recorded."""
        self.counters.trialled += decision.would_have is not None
        self._judging.went(memory_of(call), heard.seen)
        return self._asked(call, request, heard.verdicts, decision, "sent")

    def _asked(self, call: Call, request: jsonrpc.Request, verdicts: Verdicts, decision: Decision, outcome: Outcome, kept: Kept | None = None) -> bool:
        try:
            self.records.asked(call, request.raw, verdicts, decision, outcome, self.policy, kept)
        except EvidenceError:
            self._executor.lost += 1
            return False
        return True

    async def _retry(self, call: Call, request: jsonrpc.Request, rules: ToolRules) -> Ticket | None:
        """The ticket of an earlier, undelivered item for the same call, or of one that is about to be."""
        for item in await self._executor.standing(call.identity):
            # A denial stands for the exact call, whether or not its client was there to hear it.
            if item.state is State.DENIED or (item.orphaned and item.state in (State.HELD, State.APPROVED)):
                if item.holds == "request" and item.state is not State.DENIED and not await self._meta_is_clean(request, rules):
                    continue
                if (ticket := await self._executor.come(item.id, call.id, call, time.monotonic() + rules.claim_after_s)) is not None:
                    return ticket
        while (left := await self._under_way.left_behind(call)) is not None:
            if (ticket := await self._executor.come(left, call.id, call, time.monotonic() + rules.claim_after_s)) is not None:
                return ticket
        return None

    async def _meta_is_clean(self, request: jsonrpc.Request, rules: ToolRules) -> bool:
        """What was approved is the call without its `_meta`, which is another's with every retry."""
        meta = {"_meta": request.params["_meta"]} if "_meta" in request.params else {}
        bare = jsonrpc.Request(request.id, request.method, meta, request.raw)
        heard = await self._judging.leaving(bare, rules, "")
        return decide_arguments(heard.verdicts, rules.outgoing, rules.taint).ruling is Ruling.RELEASE

    def leaving_now(self, message: jsonrpc.Message, principal: Principal, session: str | None) -> bool | None:
        """`leaving`, where it can be said at once."""
        rules = self._rules_of(message)
        if self._stopped(message):
            return self._said(message, principal, session, Heard(()), Decision(Ruling.REFUSE, "not judged"))
        heard = self._judging.leaving_at_once(message, rules, session or str(principal))
        if heard is None:
            return None
        decision = decide_arguments(heard.verdicts, rules.outgoing, rules.taint)
        return self._said(message, principal, session, heard, decision) if decision.ruling is Ruling.RELEASE else None

    async def leaving(self, message: jsonrpc.Message, principal: Principal, session: str | None) -> bool:
        """A client's notification, or its answer to a server's request: whether it may go on."""
        policy, rules = self.policy, self._rules_of(message)
        heard = await self._judging.leaving(message, rules, session or str(principal))
        if self._stopped(message):
            return self._said(message, principal, session, Heard(()), Decision(Ruling.REFUSE, "not judged"))
        if self.policy is not policy:
            return await self.leaving(message, principal, session)
        return self._said(message, principal, session, heard, decide_arguments(heard.verdicts, rules.outgoing, rules.taint))

    def _stopped(self, message: jsonrpc.Message) -> bool:
        """By the kill switch: nothing goes to the server any more, but that a call is given up."""
        return self.locked is not None and getattr(message, "method", "") != "notifications/cancelled"

    def _said(self, message: jsonrpc.Message, principal: Principal, session: str | None, heard: Heard, decision: Decision) -> bool:
        passes = decision.ruling is Ruling.RELEASE
        try:
            self.records.said(message, (self.server, str(principal), session), heard.verdicts, decision, "sent" if passes else "refused", self.policy)
        except EvidenceError:
            self._executor.lost += 1
            passes = False
        if passes:
            self._judging.went(session or str(principal), heard.seen)
        self.counters.turned_away += not passes
        return passes

    # --- what the relay brings: messages of the server's ---

    def receive_now(self, arrival: Arrival) -> Outgoing | None:
        """`receive`, where the message is clean by what can be said at once, and somebody is there to take it; else None."""
        is_list = listed(arrival)
        if not arrival.connected or (is_list and len(arrival.message.raw) > _LARGE_LIST):
            return None
        if is_list:
            arrival = self._allowed(arrival)
        call = arrival.call
        rules = self.policy.for_call(arrival.server, *((arrival.tool, arrival.method) if call is None else (call.name, call.method)))
        heard = self._judging.at_once(arrival, rules)
        if heard is None:
            return None
        decision = _ruled(heard.verdicts, rules)
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
        heard = await self._judging.whole(arrival, rules)
        if self.policy is not policy:  # another by now: what was judged by is over
            return await self.receive(given)
        verdicts, decision = heard.verdicts, _ruled(heard.verdicts, rules)
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
        return await self._hold(arrival, verdicts, decision, rules)

    async def _hold(self, arrival: Arrival, verdicts: Verdicts, decision: Decision, rules: ToolRules) -> Outgoing | Ticket:
        """Into escrow; clean, it only waits for its client to come back."""
        self.counters.judged += 1
        payload = Payload(arrival.message.raw, arrival.headers)
        item = item_of_arrival(arrival, payload, verdicts, decision.ruling, rules, self.policy.version)
        kept = None if self._full() else await self._keep(item, payload)
        if kept is None:
            # Nothing is let through that could not be recorded: the client is told "denied", nothing is kept.
            self.counters.refused += 1
            self._judged(arrival, verdicts, decision, "refused")
            return self._executor.words(item, arrival.answer_id, Why.DENIED)
        if listed(arrival):
            self._executor.spawn(self._definitions.hold(arrival.message))
        self._judged(arrival, verdicts, decision, _OUTCOMES[decision.ruling], kept)
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
        self._executor.spawn(self._learn(item, raw))

    async def _learn(self, item: Item, raw: bytes) -> None:
        seen = await asyncio.to_thread(lambda: sightings(jsonrpc.parse(raw), asked=False))
        self._judging.came(item.session or item.principal, item.tool if item.kind is Kind.TOOL_CALL else "", seen)

    def unreadable(self, where: str) -> None:
        """A message was refused because it could not be read in one way only."""
        self.counters.unreadable += 1
        self.records.unreadable(where)

    # --- items ---

    def _full(self) -> bool:
        return len(self._executor.entries) >= self.policy.escrow.max_items

    async def _keep(self, item: Item, payload: Payload) -> Kept | None:
        """Write an item. None where that did not work."""
        try:
            secret = await self._store(self._store.store.put, item, payload)
        except Exception:
            return None
        self._executor.adopt(item)
        self.counters.held += 1
        return Kept(item.id, secret)


_LARGE_LIST = 64 * 1024
"""Larger lists of tools are cut in a thread."""

_OUTCOMES: dict[Ruling, Outcome] = {Ruling.RELEASE: "approved", Ruling.HOLD: "held", Ruling.REFUSE: "denied"}


def memory_of(call: Call) -> str:
    """Under which name whom a call's session has seen is remembered: the session's, or in the stateless era its principal's."""
    return call.session or call.principal.text


def _ruled(verdicts: Verdicts, rules: ToolRules) -> Decision:
    return decide(verdicts, rules.require, rules.on_hostile, rules.on_unsure, rules.trial)
