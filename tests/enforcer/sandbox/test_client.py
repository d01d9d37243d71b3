"""The daemon's end of the keeper's socket: whatever the keeper does, a run ends in bounded time, and what is not known is never an answer."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from enforcer.exactly import receive
from enforcer.sandbox import client, frames
from enforcer.sandbox.client import Speculation, Twins
from enforcer.sandbox.frames import ANSWER, Asked, Kind, Phase
from escrow.call import Call, Transport
from escrow.policy import Policy
from escrow.principal import from_address
from escrow.sandbox.run import Run
from escrow.sandbox.settings import SandboxSettings

pytestmark = pytest.mark.anyio
RAW = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read"}}'
GOOD = Run("answered", answer=b'{"jsonrpc":"2.0","id":1,"result":{}}', took_ms=2.0, pooled=True)
LATE = Run("late", why="the keeper of the twins is silent")
GONE = Run("absent", why="the keeper of the twins ended")
RULES = Policy().for_call("s", "read")


def settings(**changes: Any) -> SandboxSettings:
    return SandboxSettings.model_validate({"command": ["server"], "snapshot_ms": 2000, "run_ms": 2000, **changes})


def call(server: str = "s") -> Call:
    return Call(server, from_address("192.0.2.1"), None, Transport.SESSION, 1, "tools/call", "read", "a" * 64)


class Keeper:
    """The far end, in the test's own hand."""

    def __init__(self, far: socket.socket) -> None:
        self.far = far
        far.setblocking(False)

    async def asked(self) -> tuple[int, Phase, Asked | None, bytes]:
        async with asyncio.timeout(5):
            number, phase, head_bytes, raw_bytes = frames.read_question(await receive(self.far, frames.QUESTION.size))
            head, raw = await receive(self.far, head_bytes), await receive(self.far, raw_bytes)
        return number, phase, frames.read_asked(head) if phase is Phase.FREEZE else None, raw

    async def say(self, whole: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.far, whole)


class World:
    def __init__(self, **changes: Any) -> None:
        self.lost = 0
        self._far: list[socket.socket] = []
        self.twins = Twins({"s": settings(**changes)}, on_lost=self._lost)

    def _lost(self) -> None:
        self.lost += 1

    async def close(self) -> None:
        await self.twins.close()
        for far in self._far:
            far.close()

    def keeper(self) -> Keeper:
        near, far = socket.socketpair()
        self.twins.add(near)
        self._far.append(far)
        return Keeper(far)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


async def frozen(world: World, keeper: Keeper) -> tuple[int, Speculation]:
    """A run whose state is frozen."""
    freezing = asyncio.ensure_future(world.twins.freeze(call(), RAW, RULES))
    number, *_ = await keeper.asked()
    await keeper.say(frames.frozen(number))
    return number, await bounded(freezing)


async def bounded(what: Any) -> Any:
    async with asyncio.timeout(5):
        return await what


async def test_the_keeper_is_asked_with_the_calls_own_bytes_and_its_run_comes_back(world: World) -> None:
    keeper = world.keeper()
    freezing = asyncio.ensure_future(world.twins.freeze(call(), RAW, RULES))
    number, phase, asked, raw = await keeper.asked()
    assert (phase, asked, raw) == (Phase.FREEZE, Asked("s", 1), RAW)
    assert not freezing.done(), "the real call waits for the state"
    await keeper.say(frames.frozen(number))
    speculation = await bounded(freezing)
    await keeper.say(frames.ran(number, GOOD))
    assert await bounded(speculation.ran()) == GOOD and await speculation.ran() == GOOD
    assert (world.twins.asked, world.twins.pooled) == (1, 1)


async def test_runs_that_end_in_another_order_find_their_calls(world: World) -> None:
    keeper = world.keeper()
    (first, one), (second, other) = await frozen(world, keeper), await frozen(world, keeper)
    await keeper.say(frames.ran(second, LATE) + frames.ran(first, GOOD))
    assert (await bounded(one.ran()), await bounded(other.ran())) == (GOOD, LATE)


async def test_without_a_keeper_a_run_is_absent_and_says_why(world: World) -> None:
    assert await (await world.twins.freeze(call(), RAW, RULES)).ran() == Run("absent", why="the keeper of the twins is not there")
    other = Twins({"s": settings()}, missing="runsc is not installed")
    assert await (await other.freeze(call(), RAW, RULES)).ran() == Run("absent", why="runsc is not installed")
    assert await (await other.freeze(call("t"), RAW, RULES)).ran() == Run("absent", why="the policy has no twin of this server")


@pytest.mark.parametrize("frozen_first", [True, False], ids=["after the state was frozen", "before"])
async def test_a_keeper_that_ends_ends_its_runs_and_another_is_wanted_once(world: World, frozen_first: bool) -> None:
    keeper = world.keeper()
    if frozen_first:
        _, speculation = await frozen(world, keeper)
        keeper.far.close()
    else:
        freezing = asyncio.ensure_future(world.twins.freeze(call(), RAW, RULES))
        await keeper.asked()
        keeper.far.close()
        speculation = await bounded(freezing)
    assert await bounded(speculation.ran()) == GONE
    assert world.lost == 1 and not world.twins.present
    again = world.keeper()
    number, speculation = await frozen(world, again)
    await again.say(frames.ran(number, GOOD))
    assert await bounded(speculation.ran()) == GOOD and world.lost == 1


async def test_a_keeper_that_cannot_freeze_in_time_makes_no_run_of_what_it_freezes_later() -> None:
    world = World(snapshot_ms=10)
    keeper = world.keeper()
    speculation = await bounded(world.twins.freeze(call(), RAW, RULES))
    number, *_ = await keeper.asked()
    assert (await keeper.asked())[:2] == (number, Phase.DISCARD)
    await keeper.say(frames.frozen(number) + frames.ran(number, GOOD))
    assert await speculation.ran() == Run("failed", why="its state could not be frozen within 10 ms")
    await world.close()


async def test_a_keeper_that_is_silent_after_freezing_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "GRACE_S", 0.01)
    world = World(snapshot_ms=50, run_ms=10)
    keeper = world.keeper()
    number, speculation = await frozen(world, keeper)
    assert await bounded(speculation.ran()) == LATE
    await keeper.say(frames.ran(number, GOOD))
    shown = asyncio.ensure_future(world.twins.show())
    asked, phase, *_ = await keeper.asked()
    assert phase is Phase.SHOW
    await keeper.say(frames.shown(asked, {"servers": ["read after the run that came too late"]}))
    assert (await bounded(shown))["servers"] and await speculation.ran() == LATE
    await world.close()


async def test_a_keeper_that_sends_a_byte_now_and_then_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "GRACE_S", 0.05)
    world = World(snapshot_ms=50, run_ms=10)
    keeper = world.keeper()
    number, speculation = await frozen(world, keeper)

    async def trickle() -> None:
        for byte in frames.ran(number, GOOD):
            await keeper.say(bytes([byte]))
            await asyncio.wait({asyncio.ensure_future(speculation.ran())}, timeout=0.005)

    trickling = asyncio.ensure_future(trickle())
    assert await bounded(speculation.ran()) == LATE
    trickling.cancel()
    with suppress(asyncio.CancelledError):
        await trickling
    await world.close()


LIES = {
    "no kind": ANSWER.pack(0, 9, 0, 0),
    "a body without end": ANSWER.pack(0, Kind.RUN, 0xFFFFFFFF, 0),
    "no run": ANSWER.pack(0, Kind.RUN, 2, 0) + b"{}",
    "an answer of a run that has none": ANSWER.pack(0, Kind.RUN, 18, 2) + b'{"outcome":"late"}' + b"{}",
    "another call's run that is garbled": ANSWER.pack(77, Kind.RUN, 1, 0) + b"[",
    "no object": ANSWER.pack(0, Kind.SHOWN, 2, 0) + b"[]",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_keeper_that_says_what_no_honest_one_says_is_given_up(world: World, lie: bytes) -> None:
    keeper = world.keeper()
    _, speculation = await frozen(world, keeper)
    await keeper.say(lie)
    assert await bounded(speculation.ran()) == GONE and world.lost == 1


async def test_a_run_nobody_asked_for_changes_nothing(world: World) -> None:
    keeper = world.keeper()
    number, speculation = await frozen(world, keeper)
    await keeper.say(frames.ran(number + 1, LATE) + frames.frozen(number + 1) + frames.ran(number, GOOD))
    assert await bounded(speculation.ran()) == GOOD and world.lost == 0


async def test_a_run_that_is_given_up_is_told_to_the_keeper_once(world: World) -> None:
    keeper = world.keeper()
    number, speculation = await frozen(world, keeper)
    speculation.discard()
    speculation.discard()
    assert await speculation.ran() == Run("absent", why="it was given up")
    assert (await keeper.asked())[:2] == (number, Phase.DISCARD)
    following, *_ = await frozen(world, keeper)
    assert following == number + 1, "nothing was said in between"


async def test_a_call_that_leaves_while_its_state_is_frozen_gives_its_run_up(world: World) -> None:
    keeper = world.keeper()
    freezing = asyncio.ensure_future(world.twins.freeze(call(), RAW, RULES))
    number, *_ = await keeper.asked()
    freezing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await freezing
    assert (await keeper.asked())[:2] == (number, Phase.DISCARD)


async def test_no_more_runs_are_under_way_than_the_bound(world: World) -> None:
    keeper = world.keeper()
    for _ in range(frames.IN_FLIGHT):
        await frozen(world, keeper)
    assert await (await bounded(world.twins.freeze(call(), RAW, RULES))).ran() == Run("absent", why="too many runs are under way")


async def test_a_call_larger_than_the_bound_is_absent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.keeper()
    monkeypatch.setattr(frames, "MAX_RAW_BYTES", len(RAW) - 1)
    assert await (await bounded(world.twins.freeze(call(), RAW, RULES))).ran() == Run("absent", why="the call is larger than a twin takes")


async def test_a_silent_keeper_is_shown_as_silent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SHOW_S", 0.01)
    world.keeper()
    assert json.loads(json.dumps(await bounded(world.twins.show()))) == {
        "present": True, "why": "the keeper of the twins is silent", "runs": 0, "pooled": 0, "servers": []
    }  # fmt: skip


async def test_closing_answers_what_waits_and_wants_no_other_keeper(world: World) -> None:
    keeper = world.keeper()
    _, speculation = await frozen(world, keeper)
    await bounded(world.twins.close())
    assert await speculation.ran() == GONE and world.lost == 0
