"""What clients send, on its way to the server: it goes on, it is held, or it is refused."""

from __future__ import annotations

import time
from dataclasses import replace

from enforcer.custody.items import item_of_request
from enforcer.custody.judging import OUTCOMES, Heard, Verdicts, ruled
from enforcer.custody.people import People
from enforcer.custody.records import Outcome
from enforcer.custody.speculating import Speculating, sandboxed
from enforcer.custody.ticket import Ticket
from enforcer.custody.traffic import Counters, Kept, Outgoing, Running
from enforcer.custody.under_way import UnderWay
from enforcer.evidence import EvidenceError
from escrow import answers, jsonrpc
from escrow.answers import Why
from escrow.call import Call
from escrow.decision import Decision, Ruling, decide_arguments
from escrow.item import Item, Payload, State
from escrow.policy import Policy, ToolRules
from escrow.principal import Principal
from escrow.verdict import Finding, Verdict, unsure


class Requests(People):
    """See the module."""

    counters: Counters
    _under_way: UnderWay
    _speculating: Speculating

    def ask_now(self, call: Call, request: jsonrpc.Request) -> Running | Outgoing | None:
        """A client's request came: `ask`, where it can be answered at once; None where it cannot."""
        rules = self.policy.for_call(call.server, call.name, call.method)
        if (refused := self._turned_away(call, request, rules)) is not None:
            return refused
        if self._executor.known(call.identity) or self._under_way.has_orphan(call) or sandboxed(call, rules):
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
        decision = decide_arguments(heard.verdicts, rules.outgoing, rules.taint)
        if decision.ruling is not Ruling.RELEASE:
            return await self._hold_request(call, request, heard.verdicts, decision, rules)
        if sandboxed(call, rules):
            return await self._speculate(call, request, heard, decision, rules, policy)
        return self._under_way.begin(call) if self._sent(call, request, heard, decision) else self._unsent(call)

    async def _speculate(
        self, call: Call, request: jsonrpc.Request, heard: Heard, decision: Decision, rules: ToolRules, policy: Policy
    ) -> Running | Ticket | Outgoing:
        """Its twin runs it: beside the server, or before it, in which case it goes on only if that was clean.

        It counts as under way from here on, so that the same call of a client that left meanwhile waits for what becomes of this one.
        """
        running, left, goes = self._under_way.begin(call), None, False
        try:
            running.on_over = await self._speculating.begin(call, request.raw, rules)
            found = await self._speculating.before(call, rules) if rules.when == "before" else None
            if self.policy is policy and self.locked is None:
                if found is not None:
                    heard = heard._replace(verdicts=(*heard.verdicts, found[0]))
                    if (ran := ruled((_ARGUMENTS, found[0]), replace(rules, require=frozenset()))).ruling is not Ruling.RELEASE or ran.would_have is not None:
                        decision = ran
                if found is not None and decision.ruling is not Ruling.RELEASE:
                    given = await self._hold_request(call, request, heard.verdicts, decision, rules, found[1])
                    left = given.item_id or None
                    return given
                if rules.revert and (why := await self._reverting.take(call)):
                    given = await self._without_way_back(call, request, heard.verdicts, why, rules, None if found is None else found[1])
                    left = given.item_id or None
                    return given
            if self.policy is policy and self.locked is None:
                goes = self._sent(call, request, heard, decision)
                return running if goes else self._unsent(call)
        finally:
            if not goes:
                self._under_way.settle(running, left)
        return await self.ask(call, request)  # a person locked the server, or the policy is another: what was judged by is over

    async def _prepare(self, running: Running, raw: bytes) -> None:
        """A held call that was approved goes on: its twin of then is gone, and its result needs one."""
        call = running.call
        rules = self.policy.for_call(call.server, call.name, call.method)
        if sandboxed(call, rules):
            running.on_over = await self._speculating.begin(call, raw, rules)
        if rules.revert:  # where none can be kept it runs all the same, as a person says
            await self._reverting.take(call)

    async def _without_way_back(
        self, call: Call, request: jsonrpc.Request, verdicts: Verdicts, why: str, rules: ToolRules, report: str | None
    ) -> Ticket | Outgoing:
        """The policy wants a clone of the state from before this call, and there is none: it does not run."""
        verdict = unsure("sandbox", "sandbox.clone", f"No clone of the state could be kept, so that the call could not be put back: {why}.")
        return await self._hold_request(call, request, (*verdicts, verdict), Decision(Ruling.HOLD, "unsure"), rules, report)

    async def _hold_request(
        self, call: Call, request: jsonrpc.Request, verdicts: Verdicts, decision: Decision, rules: ToolRules, report: str | None = None
    ) -> Ticket | Outgoing:
        """A call that may not go on: into escrow, or refused. report: of its run in a twin."""
        item = item_of_request(call, request, verdicts, decision.ruling, rules, self.policy.version)
        kept = None if self._full() else await self._keep(item, Payload(request.raw, sandbox=report))
        if kept is None:
            self._asked(call, request, verdicts, decision, "refused")
            return self._unsent(call)
        self._asked(call, request, verdicts, decision, OUTCOMES[decision.ruling], kept)
        ticket = await self._executor.come(item.id, call.id, call, time.monotonic() + rules.claim_after_s, request.raw)
        return ticket if ticket is not None else self._executor.words(item, call.id, Why.EXPIRED)

    def _unsent(self, call: Call) -> Outgoing:
        self.counters.turned_away += 1
        return Outgoing(answers.result_for(call.kind, Why.DENIED, "", call.id, of_request=True), (), Why.DENIED)

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

    def _writes(self, call: Call) -> bool:
        """Whether the policy takes it for a call that may change state."""
        return call.method == "tools/call" and self.policy.for_call(call.server, call.name, call.method).tool_class != "read-only"

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
                if (ticket := await self._executor.come(item.id, call.id, call, time.monotonic() + rules.claim_after_s, request.raw)) is not None:
                    return ticket
        while (left := await self._under_way.left_behind(call)) is not None:
            if (ticket := await self._executor.come(left, call.id, call, time.monotonic() + rules.claim_after_s, request.raw)) is not None:
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


_ARGUMENTS = Verdict("scanner", Finding.CLEAN, 0.0)
"""Stands in for the judges of a call's arguments, which found it clean, beside the verdict on its run."""


def memory_of(call: Call) -> str:
    """Under which name whom a call's session has seen is remembered: the session's, or in the stateless era its principal's."""
    return call.session or str(call.principal)
