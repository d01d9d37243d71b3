"""The way back in custody: when a clone is taken, whose it is, when it goes, and when there is none."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from enforcer.custody import Answer
from enforcer.custody.reverting import NOBODY, Reverting, Verb
from enforcer.sandbox.way_back import MAX_CHANGES, NoOrder, Order, Told, order_bytes, read_order, read_told, told_bytes
from escrow.call import Call, Transport
from escrow.principal import from_address
from escrow.sandbox.effects import Change, Write

pytestmark = pytest.mark.anyio


def call(tool: str = "write", server: str = "s") -> Call:
    return Call(server, from_address("192.0.2.1"), None, Transport.SESSION, 1, "tools/call", tool, "a" * 64)


@dataclass
class Clones:
    """Tokens t1, t2, …; says `why` of each verb that has one."""

    why: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    taken: int = 0
    wait: asyncio.Event | None = None
    forgot: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, server: str, verb: Verb, token: str) -> Answer:
        self.asked.append((verb, token))
        if verb == "forget":
            self.forgot.set()
        if self.wait is not None:
            await self.wait.wait()
        if verb in self.why:
            return Answer(why=self.why[verb])
        if verb != "take":
            return Answer()
        self.taken += 1
        return Answer(f"t{self.taken}")


@dataclass
class Desk:
    clones: Clones = field(default_factory=Clones)
    running: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reverting = Reverting(lambda: self.clones, lambda: self.running, lambda call: call.name != "read")

    def begin(self, one: Call) -> Call:
        self.reverting.began(one)
        self.running.append(one)
        return one

    async def forgotten(self, token: str) -> None:
        async with asyncio.timeout(5):
            await self.clones.forgot.wait()
        assert ("forget", token) in self.clones.asked


async def test_a_clone_is_taken_settled_and_given_to_the_item_once() -> None:
    desk = Desk()
    mine = desk.begin(call())
    assert await desk.reverting.take(mine) == ""
    desk.reverting.answered(mine)
    desk.reverting.answered(mine)  # judged again, as the policy changed
    assert await desk.reverting.settled(mine) == ("t1", "")
    assert await desk.reverting.settled(mine) == (None, "")
    desk.reverting.over(mine)
    assert desk.clones.asked == [("take", ""), ("settle", "t1")]


async def test_a_call_that_is_over_without_an_item_leaves_no_clone() -> None:
    desk = Desk()
    mine = desk.begin(call())
    await desk.reverting.take(mine)
    desk.reverting.over(mine)
    await desk.forgotten("t1")


async def test_it_is_forgotten_only_after_it_is_settled() -> None:
    desk = Desk()
    mine = desk.begin(call())
    await desk.reverting.take(mine)
    desk.reverting.answered(mine)
    desk.reverting.over(mine)
    await desk.forgotten("t1")
    assert [verb for verb, _ in desk.clones.asked] == ["take", "settle", "forget"]


@pytest.mark.parametrize("when", ["before", "while it is taken", "after"])
@pytest.mark.parametrize(
    "other, apart",
    [(call("write"), False), (call("read"), True), (call("write", "another"), True)],
    ids=["it may write", "it may not write", "of another server"],
)
async def test_another_call_at_the_same_time_takes_the_way_back(when: str, other: Call, apart: bool) -> None:
    desk = Desk()
    if when == "before":
        desk.begin(other)
    mine = desk.begin(call())
    desk.clones.wait = asyncio.Event()
    taking = asyncio.ensure_future(desk.reverting.take(mine))
    await asyncio.sleep(0)
    if when == "while it is taken":
        desk.begin(other)
    desk.clones.wait.set()
    assert await taking == ""
    if when == "after":
        desk.begin(other)
    desk.reverting.answered(mine)
    token, why = await desk.reverting.settled(mine)
    assert (token == "t1") is apart and ("cannot be told apart" in why) is not apart
    if not apart:
        await desk.forgotten("t1")


async def test_a_clone_that_cannot_be_taken_or_settled_is_none_and_says_why() -> None:
    desk = Desk(Clones({"take": "the disk is full"}))
    assert await desk.reverting.take(desk.begin(call())) == "the disk is full"
    desk = Desk(Clones({"settle": "it does not stand still"}))
    mine = desk.begin(call())
    assert await desk.reverting.take(mine) == ""
    desk.reverting.answered(mine)
    assert await desk.reverting.settled(mine) == (None, "it does not stand still")
    assert await Reverting(lambda: None, list, lambda call: True).take(call()) == NOBODY


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"verb":"rm","token":""}', b'{"verb":"take"', b"[1]"])
def test_what_is_no_order_is_refused(raw: bytes) -> None:
    with pytest.raises(NoOrder):
        read_order(raw)


def test_orders_and_answers_cross_whole_and_bounded() -> None:
    assert read_order(order_bytes(Order("plan", "t"))) == Order("plan", "t")
    told = Told("t", "why", (Write("/x", Change.DELETED),), 3, True)
    assert read_told(told_bytes(told)) == told
    for large in (Told(why="x" * 5000), Told(changes=(Write("/x", Change.DELETED),) * (MAX_CHANGES + 1)), Told(changes=(Write("x" * 5000, Change.DELETED),))):
        with pytest.raises(NoOrder):
            read_told(told_bytes(large))
