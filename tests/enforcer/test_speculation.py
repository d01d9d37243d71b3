"""Custody beside a run in a twin: every order in which the run, the answer, the client, a lock and another policy can come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from enforcer.custody import Arrival, Custody, Judges, Outgoing, Running, Said, Ticket
from enforcer.custody.custodian import StoreFailed
from enforcer.evidence import EvidenceLog
from enforcer.store import Store
from escrow import jsonrpc
from escrow.answers import Why
from escrow.call import Call, Transport
from escrow.item import State
from escrow.policy import Judging, Policy, ToolRules
from escrow.principal import from_address
from escrow.sandbox.effects import Change, Effects, Write
from escrow.sandbox.run import Run
from escrow.verdict import Finding, Verdict

pytestmark = pytest.mark.anyio
ME = from_address("192.0.2.1")
RAW = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read"}}'
ASKED = jsonrpc.Request(1, "tools/call", {"name": "read"}, RAW)
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{"n":"good"}}'
GOOD = Run("answered", answer=ANSWER)
LATE = Run("late", why="no answer")
BAD = Run("answered", Effects(writes=(Write("/etc/passwd", Change.CHANGED, 0o100644),)), ANSWER)


def call() -> Call:
    return Call("s", ME, None, Transport.SESSION, 1, "tools/call", "read", "a" * 64)


@dataclass
class Speculated:
    run: asyncio.Future[Run] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    discarded: bool = False

    async def ran(self) -> Run:
        return await asyncio.shield(self.run)

    def discard(self) -> None:
        self.discarded = True


@dataclass
class FakeTwins:
    """Each run ends when the test says so."""

    runs: list[Speculated] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    freezing: asyncio.Event | None = None
    """Freezing waits for this; `asked` says that one does."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def freeze(self, call: Call, raw: bytes, rules: ToolRules) -> Speculated:
        assert raw == RAW
        if self.freezing is not None:
            self.asked.set()
            await self.freezing.wait()
        self.runs.append(Speculated())
        self.came.set()
        return self.runs[-1]

    async def begun(self, count: int = 1) -> Speculated:
        async with asyncio.timeout(5):
            while len(self.runs) < count:
                self.came.clear()
                await self.came.wait()
        return self.runs[count - 1]


async def clean(message: jsonrpc.Message) -> Said:
    return Said(Verdict("scanner", Finding.CLEAN, 0.0))


def policy(**changes: Any) -> Policy:
    return Policy(judging=Judging.model_validate({"judges": {"scanner", "sandbox"}, "require": {"scanner", "sandbox"}, "when": "alongside", **changes}))


@pytest.fixture
def twins() -> FakeTwins:
    return FakeTwins()


@pytest.fixture
async def custody(tmp_path: Path, twins: FakeTwins) -> AsyncIterator[Custody]:
    store = Store(tmp_path / "state")
    log = EvidenceLog.open(tmp_path / "state", "s", lambda text: None)
    made = Custody(policy(), "s", store, Judges(clean, twins=twins), log)
    await made.open()
    yield made
    made.close()
    log.close()
    store.close()


def arrival(of: Call, raw: bytes = ANSWER) -> Arrival:
    return Arrival(jsonrpc.read(raw), of, "s", ME, None, Transport.SESSION, time.monotonic())


async def sent(custody: Custody, of: Call) -> Running:
    running = await custody.ask(of, ASKED)
    assert isinstance(running, Running)
    return running


async def test_nothing_is_said_at_once_of_a_call_that_runs_in_a_twin(custody: Custody) -> None:
    assert custody.ask_now(call(), ASKED) is None and custody.receive_now(arrival(call())) is None


async def test_a_result_waits_for_its_run_and_goes_out_as_agreed(custody: Custody, twins: FakeTwins) -> None:
    one = call()
    await sent(custody, one)
    receiving = asyncio.ensure_future(custody.receive(arrival(one)))
    done, _ = await asyncio.wait({receiving}, timeout=0.05)
    assert not done
    twins.runs[0].run.set_result(GOOD)
    assert await receiving == Outgoing(ANSWER) and custody.recent[-1]["recorded"] == "agreed"


async def test_a_run_that_ended_first_is_judged_when_the_result_comes(custody: Custody, twins: FakeTwins) -> None:
    one = call()
    await sent(custody, one)
    twins.runs[0].run.set_result(GOOD)
    assert await custody.receive(arrival(one)) == Outgoing(ANSWER)


@pytest.mark.parametrize(
    ("run", "finding", "rule"),
    [
        (BAD, Finding.HOSTILE, "sandbox.write"),
        (Run("late"), Finding.UNSURE, "sandbox.late"),
        (Run("absent"), Finding.UNSURE, "sandbox.absent"),
        (replace(GOOD, answer=b'{"jsonrpc":"2.0","id":1,"result":{"n":"other"}}'), Finding.UNSURE, "sandbox.different"),
    ],
)
async def test_any_other_run_holds_the_result_with_what_it_did(custody: Custody, twins: FakeTwins, run: Run, finding: Finding, rule: str) -> None:
    one = call()
    await sent(custody, one)
    twins.runs[0].run.set_result(run)
    ticket = await custody.receive(arrival(one))
    assert isinstance(ticket, Ticket)
    verdict = (await custody.item(ticket.item_id)).verdicts[-1]
    payload = await custody.payload(ticket.item_id)
    assert (verdict.judge, verdict.finding) == ("sandbox", finding) and rule in {reason.rule for reason in verdict.reasons}
    assert payload is not None and payload.sandbox is not None and f'"outcome": "{run.outcome}"' in payload.sandbox


async def test_without_twins_a_result_is_held_as_unsure(custody: Custody) -> None:
    custody._judging.judges = Judges(clean)
    one = call()
    await sent(custody, one)
    ticket = await custody.receive(arrival(one))
    assert isinstance(ticket, Ticket) and (await custody.item(ticket.item_id)).verdicts[-1].finding is Finding.UNSURE


async def test_before_a_hostile_run_holds_the_request_which_never_goes_on(custody: Custody, twins: FakeTwins) -> None:
    custody.policy = policy(when="before")
    asking = asyncio.ensure_future(custody.ask(call(), ASKED))
    (await twins.begun()).run.set_result(BAD)
    ticket = await asking
    assert isinstance(ticket, Ticket)
    item = await custody.item(ticket.item_id)
    assert item.holds == "request" and item.state is State.HELD and custody.recent[-1]["recorded"] == "hostile"
    assert twins.runs[0].discarded and custody.counters.judged == 0


async def test_a_retry_of_a_held_call_runs_no_twin(custody: Custody, twins: FakeTwins) -> None:
    custody.policy = policy(when="before")
    asking = asyncio.ensure_future(custody.ask(call(), ASKED))
    (await twins.begun()).run.set_result(BAD)
    ticket = await asking
    assert isinstance(ticket, Ticket)
    await ticket.failed()
    assert isinstance(await custody.ask(call(), ASKED), Ticket) and len(twins.runs) == 1


async def test_before_a_clean_run_lets_the_call_go_on_and_judges_its_result_by_the_same_run(custody: Custody, twins: FakeTwins) -> None:
    custody.policy = policy(when="before")
    one = call()
    asking = asyncio.ensure_future(custody.ask(one, ASKED))
    (await twins.begun()).run.set_result(GOOD)
    assert isinstance(await asking, Running)
    assert await custody.receive(arrival(one)) == Outgoing(ANSWER) and len(twins.runs) == 1


async def approved(custody: Custody, twins: FakeTwins, of: Call, run: Run = LATE) -> tuple[Ticket, Running]:
    """A call whose run before it held it, and that a person lets go on."""
    custody.policy = policy(when="before")
    asking = asyncio.ensure_future(custody.ask(of, ASKED))
    (await twins.begun()).run.set_result(run)
    ticket = await asking
    assert isinstance(ticket, Ticket)
    item = await custody.item(ticket.item_id)
    await custody.approve(item.id, "alice", "it may", item.result_sha256)
    proceed = (await ticket.outcome()).proceed
    assert proceed is not None
    return ticket, proceed


async def test_an_approved_call_runs_in_another_twin_as_it_goes_on_and_an_honest_result_is_agreed(custody: Custody, twins: FakeTwins) -> None:
    one = call()
    ticket, running = await approved(custody, twins, one)
    assert twins.runs[0].discarded and len(twins.runs) == 1
    await ticket.delivered()
    (await twins.begun(2)).run.set_result(GOOD)
    assert await custody.receive(arrival(one)) == Outgoing(ANSWER) and custody.recent[-1]["recorded"] == "agreed"
    custody.settle(running)
    assert twins.runs[1].discarded


async def test_what_an_approved_call_did_against_the_policy_holds_its_result_too(custody: Custody, twins: FakeTwins) -> None:
    one = call()
    ticket, _ = await approved(custody, twins, one, BAD)
    await ticket.delivered()
    (await twins.begun(2)).run.set_result(BAD)
    again = await custody.receive(arrival(one))
    assert isinstance(again, Ticket) and (await custody.item(again.item_id)).holds == "result"


async def test_the_state_of_an_approved_call_is_frozen_before_it_is_recorded_to_go_on(custody: Custody, twins: FakeTwins) -> None:
    ticket, _ = await approved(custody, twins, call())
    twins.freezing = asyncio.Event()
    going = asyncio.ensure_future(ticket.delivered())
    await asyncio.wait_for(twins.asked.wait(), 5)
    assert (await custody.item(ticket.item_id)).state is State.APPROVED and not going.done()
    twins.freezing.set()
    await going
    assert (await custody.item(ticket.item_id)).state is State.DELIVERED


async def test_a_lock_while_the_state_of_an_approved_call_is_frozen_stops_it_and_gives_its_twin_up(custody: Custody, twins: FakeTwins) -> None:
    ticket, _ = await approved(custody, twins, call())
    twins.freezing = asyncio.Event()
    going = asyncio.ensure_future(ticket.delivered())
    await asyncio.wait_for(twins.asked.wait(), 5)
    await custody.lock("bob", "stop")
    twins.freezing.set()
    with pytest.raises(StoreFailed):
        await going
    assert twins.runs[1].discarded and (await custody.item(ticket.item_id)).state is State.APPROVED


async def test_the_same_call_of_a_client_that_left_while_its_twin_ran_waits_for_the_first_one(custody: Custody, twins: FakeTwins) -> None:
    custody.policy = policy(when="before")
    one = call()
    first = asyncio.ensure_future(custody.ask(one, ASKED))
    speculated = await twins.begun()
    custody.leave(one)
    second = asyncio.ensure_future(custody.ask(call(), ASKED))
    speculated.run.set_result(BAD)
    tickets = await asyncio.wait_for(asyncio.gather(first, second), 5)
    assert len({ticket.item_id for ticket in tickets if isinstance(ticket, Ticket)}) == 1 and len(twins.runs) == 1


async def test_a_result_whose_client_left_while_the_twin_ran_waits_for_it(custody: Custody, twins: FakeTwins) -> None:
    one = call()
    await sent(custody, one)
    receiving = asyncio.ensure_future(custody.receive(arrival(one)))
    custody.leave(one)
    twins.runs[0].run.set_result(GOOD)
    outgoing = await receiving
    assert isinstance(outgoing, Outgoing) and outgoing.why is Why.HELD
    assert (await custody.item(outgoing.item_id)).state is State.APPROVED


async def test_a_lock_that_comes_while_the_twin_runs_stops_the_call(custody: Custody, twins: FakeTwins) -> None:
    custody.policy = policy(when="before")
    asking = asyncio.ensure_future(custody.ask(call(), ASKED))
    speculated = await twins.begun()
    await custody.lock("alice", "stop")
    speculated.run.set_result(GOOD)
    outgoing = await asking
    assert isinstance(outgoing, Outgoing) and outgoing.why is Why.LOCKED and speculated.discarded


async def test_a_lock_that_comes_before_the_run_ends_holds_the_result(custody: Custody, twins: FakeTwins) -> None:
    one = call()
    await sent(custody, one)
    receiving = asyncio.ensure_future(custody.receive(arrival(one)))
    await custody.lock("alice", "stop")
    twins.runs[0].run.set_result(GOOD)
    assert isinstance(await receiving, Ticket)


async def test_another_policy_meanwhile_judges_the_call_anew(custody: Custody, twins: FakeTwins) -> None:
    custody.policy = policy(when="before")
    asking = asyncio.ensure_future(custody.ask(call(), ASKED))
    first = await twins.begun()
    custody.policy = policy(when="before", on_hostile="refuse")
    first.run.set_result(GOOD)
    (await twins.begun(2)).run.set_result(GOOD)
    assert isinstance(await asking, Running) and first.discarded and not twins.runs[1].discarded


async def test_a_call_that_is_cancelled_or_over_gives_its_twin_up(custody: Custody, twins: FakeTwins) -> None:
    one, two = call(), call()
    await sent(custody, one)
    custody.cancelled(one)
    running = await sent(custody, two)
    custody.settle(running)
    assert [run.discarded for run in twins.runs] == [True, True]
    ticket = await custody.receive(arrival(one))
    assert isinstance(ticket, Ticket), "a result that comes all the same is held: its run is gone"


async def test_a_daemon_that_stops_gives_every_twin_up(custody: Custody, twins: FakeTwins) -> None:
    await sent(custody, call())
    custody._speculating.close()
    assert twins.runs[0].discarded
