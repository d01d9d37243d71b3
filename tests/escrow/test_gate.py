"""The gate's table: its invariants under any sequence of facts, and what each cell promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from escrow import gate
from escrow.call import Kind, Transport
from escrow.gate import (
    TABLE,
    Approved,
    Claim,
    ClaimDue,
    DeadlinePassed,
    DecisionRefused,
    Delivered,
    Denied,
    Destroy,
    Entry,
    GateError,
    Record,
    Refuse,
    Send,
    SendFailed,
    Shredded,
    WaiterCame,
    WaiterLeft,
    step,
)
from escrow.item import Item, State

DIGEST = "d" * 64
FACTS = (WaiterCame, WaiterLeft, ClaimDue, Approved, Denied, DeadlinePassed, Delivered, SendFailed, Shredded)
ONLY_WHILE_SENDING = {(State.HELD, Delivered), (State.HELD, SendFailed)}
"""Cells that are missing on purpose: nothing is ever sent from HELD."""


def item(**changes: object) -> Item:
    held = Item(
        id="hf-0123456789", state=State.HELD, kind=Kind.TOOL_CALL, tool="read", method="tools/call", server="s", principal="local:uid=1",
        session=None, transport=Transport.SESSION, call_id=7, args_sha256="a" * 64, result_sha256=DIGEST, size_bytes=2, policy_version="p",
        held_at=1.0, deadline=2.0, verdicts=(),
    )  # fmt: skip
    return replace(held, **changes)  # type: ignore[arg-type]


APPROVED = Approved("alice", "read it", 3.0, DIGEST)


class Gate(RuleBasedStateMachine):
    """Any facts in any order, and after each order what it did to whom."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = Entry(item())
        self.next = 0
        self.came: set[int] = set()
        self.left: set[int] = set()
        self.answered: dict[int, str] = {}
        self.sending: int | None = None
        self.recorded = self.entry.item
        self.decisions: list[tuple[str | None, float | None]] = []
        self.approved_by_fact = False

    def feed(self, fact: gate.Fact) -> tuple[gate.Order, ...]:
        before = self.entry
        try:
            self.entry, orders = step(before, fact)
        except DecisionRefused:
            assert isinstance(fact, Approved | Denied)
            assert before.item.state is not State.HELD or (isinstance(fact, Approved) and fact.result_sha256 != before.item.result_sha256)
            return ()
        for order in orders:
            match order:
                case Record(recorded):
                    if recorded.decided_at is not None and self.recorded.decided_at is None:
                        self.decisions.append((recorded.decided_by, recorded.decided_at))
                    assert self.recorded.decided_at is None or recorded.decided_at == self.recorded.decided_at, "a decision was changed"
                    self.recorded = recorded
                case Send(waiter):
                    assert self.recorded.state is State.APPROVED, "sent what was not recorded as approved"
                    assert self.sending is None, "sent to two at a time"
                    assert waiter not in self.answered and waiter in self.came
                    self.sending = waiter
                    self.answered[waiter] = "send"
                case Claim(waiter) | Refuse(waiter):
                    assert waiter not in self.answered and waiter in self.came
                    assert not isinstance(order, Refuse) or self.recorded.state not in (State.HELD, State.APPROVED)
                    self.answered[waiter] = type(order).__name__
                case Destroy():
                    assert self.recorded.state is State.SHREDDED
        assert self.recorded == self.entry.item, "the state in memory is not the recorded one"
        if before.item.state is State.HELD and self.entry.item.state is State.APPROVED:
            assert isinstance(fact, Approved) and fact.result_sha256 == before.item.result_sha256
        return orders

    @rule()
    def a_waiter_comes(self) -> None:
        self.next += 1
        self.came.add(self.next)
        self.feed(WaiterCame(self.next))

    @rule(which=st.integers(1, 6))
    def a_waiter_leaves(self, which: int) -> None:
        if which in self.came:
            self.left.add(which)
            self.feed(WaiterLeft(which))
            if self.sending == which:
                self.sending = None

    @rule(which=st.integers(1, 6))
    def a_claim_is_due(self, which: int) -> None:
        if which in self.came:
            self.feed(ClaimDue(which))

    @rule(other=st.booleans(), redacted=st.booleans(), at=st.floats(3, 9))
    def a_person_approves(self, other: bool, redacted: bool, at: float) -> None:
        self.feed(Approved("alice", "why", at, "e" * 64 if other else DIGEST, "r" * 64 if redacted else None))

    @rule(at=st.floats(3, 9))
    def a_person_denies(self, at: float) -> None:
        self.feed(Denied("bob", "why", at))

    @rule(at=st.floats(3, 9))
    def the_deadline_passes(self, at: float) -> None:
        self.feed(DeadlinePassed(at))

    @rule(at=st.floats(3, 9))
    def a_person_shreds(self, at: float) -> None:
        self.feed(Shredded("carol", at))
        self.sending = None

    @precondition(lambda self: self.sending is not None)
    @rule(at=st.floats(3, 9))
    def the_bytes_arrive(self, at: float) -> None:
        self.feed(Delivered(self.sending, at))
        self.sending = None

    @precondition(lambda self: self.sending is not None)
    @rule()
    def the_connection_breaks(self) -> None:
        self.feed(SendFailed(self.sending))
        self.sending = None

    @invariant()
    def at_most_one_decision(self) -> None:
        assert len(self.decisions) <= 1

    @invariant()
    def everybody_is_waiting_or_answered_or_gone(self) -> None:
        for waiter in self.came:
            waits = waiter in self.entry.waiting
            assert waits != (waiter in self.answered or waiter in self.left) or (waiter in self.answered and waiter in self.left and not waits)
        assert len(set(self.entry.waiting)) == len(self.entry.waiting)
        if self.entry.item.state is not State.HELD:
            assert self.entry.waiting == ()

    @invariant()
    def the_table_and_the_transcript_agree_on_who_is_being_sent(self) -> None:
        assert self.entry.sending == self.sending


Gate.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestGate = Gate.TestCase


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("fact", FACTS)
def test_every_cell_is_there_or_missing_on_purpose(state: State, fact: type[gate.Fact]) -> None:
    assert ((state, fact) in TABLE) != ((state, fact) in ONLY_WHILE_SENDING)


@pytest.mark.parametrize("fact", [Delivered(1, 2.0), SendFailed(1)])
def test_a_missing_cell_is_an_error_that_names_fact_and_state(fact: gate.Fact) -> None:
    with pytest.raises(GateError, match=f"{type(fact).__name__}.*held"):
        step(Entry(item()), fact)


def test_a_delivery_to_somebody_who_was_sent_nothing_is_an_error() -> None:
    with pytest.raises(GateError):
        step(Entry(item(state=State.APPROVED), (), 1), Delivered(2, 3.0))


def test_an_approval_sends_to_the_first_waiter_and_claims_to_the_others() -> None:
    entry, orders = step(Entry(item(), (1, 2, 3)), APPROVED)
    assert isinstance(orders[0], Record) and orders[1:] == (Send(1), Claim(2), Claim(3))
    assert entry.sending == 1 and entry.item.orphaned, "the others may come again"


def test_an_approval_of_other_bytes_is_refused_and_changes_nothing() -> None:
    with pytest.raises(DecisionRefused, match="other bytes"):
        step(Entry(item(), (1,)), replace(APPROVED, result_sha256="0" * 64))


def test_a_second_decision_is_refused_and_names_the_first_person() -> None:
    denied, _ = step(Entry(item()), Denied("bob", "no", 3.0))
    with pytest.raises(DecisionRefused, match=r"denied already, by bob"):
        step(denied, APPROVED)


def test_a_redacting_approval_keeps_both_digests() -> None:
    entry, _ = step(Entry(item()), replace(APPROVED, released_sha256="f" * 64))
    assert (entry.item.result_sha256, entry.item.released_sha256) == (DIGEST, "f" * 64)


def test_a_deadline_with_a_waiter_expires_and_without_one_abandons() -> None:
    waiting, orders = step(Entry(item(), (1,)), DeadlinePassed(9.0))
    assert waiting.item.state is State.EXPIRED and orders[1:] == (Refuse(1),)
    assert step(Entry(item()), DeadlinePassed(9.0))[0].item.state is State.ABANDONED


def test_a_deadline_leaves_alone_what_is_on_its_way() -> None:
    entry = Entry(item(state=State.APPROVED), (), 1)
    assert step(entry, DeadlinePassed(9.0)) == (entry, ())


def test_a_broken_send_can_be_taken_up_by_the_next_who_comes() -> None:
    entry, _ = step(Entry(item(), (1,)), APPROVED)
    entry, orders = step(entry, SendFailed(1))
    assert entry.item.orphaned and entry.sending is None and isinstance(orders[0], Record)
    assert step(entry, WaiterCame(2))[1] == (Send(2),)


@pytest.mark.parametrize("state", [State.DENIED, State.EXPIRED, State.ABANDONED, State.DELIVERED, State.SHREDDED])
def test_whoever_comes_when_it_is_over_is_refused(state: State) -> None:
    assert step(Entry(item(state=state)), WaiterCame(1))[1] == (Refuse(1),)


def test_shredding_destroys_after_the_record_and_refuses_the_waiters() -> None:
    entry, orders = step(Entry(item(), (1, 2)), Shredded("carol", 3.0))
    assert isinstance(orders[0], Record) and orders[1:] == (Destroy(), Refuse(1), Refuse(2))
    assert entry.item.state is State.SHREDDED and entry.item.decided_by == "carol"


def test_shredding_a_decided_item_keeps_who_decided() -> None:
    entry, _ = step(Entry(item(state=State.DENIED, decided_by="bob", decided_at=2.0)), Shredded("carol", 3.0))
    assert (entry.item.decided_by, entry.item.decided_at) == ("bob", 2.0)
