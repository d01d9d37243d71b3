"""Twins that follow a session's calls in order: what earlier calls left in memory and in files is there, and only what a call did itself is its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from enforcer.sandbox import template
from enforcer.sandbox.frames import Asked
from enforcer.sandbox.frozen import Layer
from enforcer.sandbox.kept import Kept
from enforcer.sandbox.pool import Pool
from enforcer.sandbox.replay import Sessions
from enforcer.sandbox.snapshots import StateSnapshots
from enforcer.sandbox.stamps import Stamps, since, stamps
from escrow.policy import Judging, Policy
from escrow.sandbox import judge
from escrow.sandbox.effects import Change, Write
from escrow.sandbox.run import Run
from escrow.verdict import Finding
from tests.enforcer.sandbox.test_twin import left
from tests.enforcer.sandbox.world import World, real, request, text, world

RULES = Policy(judging=Judging.model_validate({"judges": {"scanner", "sandbox"}, "class": "read-only"})).for_call("twin", "calls")
T = TypeVar("T")
ADD, CALLS = request("add", a=1, b=2), request("calls")


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world(pool=2, run_ms=8000, snapshot_ms=4000, answer_bytes=1 << 20) as made:
        asyncio.run(template.build(made.maker, made.templates, StateSnapshots(made.maker.settings), lambda text: None))
        yield made


def talk(here: World, what: Callable[[Sessions, Pool], Awaitable[T]], most: int = 8, idle_s: float = 600) -> T:
    """Afterwards nothing of the sessions may be left."""

    async def go() -> T:
        pool = Pool(here.maker, template.load(here.maker, here.templates), here.templates, StateSnapshots(here.maker.settings))
        sessions = Sessions(pool, most, idle_s)
        try:
            return await what(sessions, pool)
        finally:
            await sessions.close()
            await pool.close()
            assert pool.counts.left == 0

    found = asyncio.run(asyncio.wait_for(go(), 90))
    assert left(here.folder) == []
    return found


@pytest.mark.root
@pytest.mark.runsc
def test_a_counter_in_the_servers_memory_agrees_in_a_session_and_does_not_without(here: World) -> None:
    asked = (ADD, CALLS, ADD, CALLS)
    answers = asyncio.run(real(here, *asked))

    async def calls(sessions: Sessions, pool: Pool) -> tuple[list[Run], Run]:
        return [await sessions.run("one", raw, 7) for raw in asked], await pool.once(CALLS, 7)

    followed, alone = talk(here, calls)
    assert [text(answer) for answer in answers] == ["3", "1", "3", "2"]
    assert [judge.after(run, answer, RULES).finding for run, answer in zip(followed, answers, strict=True)] == [Finding.CLEAN] * 4
    assert judge.after(alone, answers[3], RULES).finding is Finding.UNSURE


@pytest.mark.root
@pytest.mark.runsc
def test_a_session_keeps_its_files_and_each_call_tells_its_own_writes(here: World) -> None:
    new, note = str(here.data / "new"), str(here.data / "notes.txt")

    async def calls(sessions: Sessions, pool: Pool) -> list[Run]:
        requests = [request("write", path=new, text="first"), request("read", path=new), request("write", path=note, text="x"), request("read", path=note)]
        return [await sessions.run("one", raw, 7) for raw in requests]

    wrote, read, changed, again = talk(here, calls)
    assert (text(read.answer), text(again.answer)) == ("first", "x")
    assert [[(write.path, write.change) for write in run.effects.writes] for run in (wrote, read, changed, again)] == [
        [(new, Change.CREATED)],
        [],
        [(note, Change.CHANGED)],
        [],
    ]
    assert all(run.effects.complete for run in (wrote, read, changed, again))
    assert not Path(new).exists() and Path(note).read_text() == "as it was"


@pytest.mark.root
@pytest.mark.runsc
def test_calls_that_come_at_once_run_in_their_order_and_sessions_are_apart(here: World) -> None:
    async def calls(sessions: Sessions, pool: Pool) -> list[str]:
        told: list[int] = []
        one = [sessions.run("one", raw, 7, lambda: told.append(1)) for raw in (ADD, ADD, ADD, CALLS)]
        runs = await asyncio.gather(*one, sessions.run("two", CALLS, 7))
        assert told == [1] * 4 and sessions.count == 2
        return [text(run.answer) for run in runs]

    assert talk(here, calls) == ["3", "3", "3", "3", "0"]


@pytest.mark.root
@pytest.mark.runsc
def test_sessions_are_bounded_and_one_that_failed_begins_anew(here: World) -> None:
    async def calls(sessions: Sessions, pool: Pool) -> tuple[list[str], int, str, Run, str]:
        for name in ("one", "two", "three"):
            await sessions.run(name, ADD, 7)
        count = sessions.count
        kept = [text((await sessions.run(name, CALLS, 7)).answer) for name in ("two", "three", "one")]
        failed = await sessions.run("one", request("big", size=4 << 20), 7)
        return kept, count, failed.outcome, failed, text((await sessions.run("one", CALLS, 7)).answer)

    kept, count, outcome, failed, after = talk(here, calls, most=2)
    assert (kept, count, outcome, failed.answer, after) == (["1", "1", "0"], 2, "failed", None, "0")


@pytest.mark.root
@pytest.mark.runsc
def test_an_idle_sessions_twin_is_ended(here: World) -> None:
    async def calls(sessions: Sessions, pool: Pool) -> int:
        assert (await sessions.run("one", ADD, 7)).outcome == "answered"
        for _ in range(3):  # the timer's own turn
            await asyncio.sleep(0)
        return sessions.count

    assert talk(here, calls, idle_s=0) == 0


@pytest.mark.root
@pytest.mark.runsc
def test_the_keeper_follows_a_session_that_it_is_asked_for(here: World) -> None:
    async def go() -> list[Run]:
        kept = Kept("twin", here.maker.settings, here.templates.parent, (here.folder / "state",))
        kept.start()
        try:
            assert await kept.ready(60)
            return [await kept.run(Asked("twin", 7, "me s1", "calls"), raw, lambda: None) for raw in (ADD, CALLS)]
        finally:
            await kept.close()

    assert [text(run.answer) for run in asyncio.run(asyncio.wait_for(go(), 90))] == ["3", "1"]
    assert left(here.folder) == []


def seen(upper: Path) -> Stamps:
    return stamps((Layer("/s", upper.parent, upper, upper.parent),), float("inf"))


def test_a_write_is_new_where_the_upper_layer_changed(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    (upper / "old").write_text("1")
    (upper / "gone").write_text("1")
    before = seen(upper)
    (upper / "d" / "new").write_text("1")
    (upper / "old").write_text("22")
    (upper / "gone").unlink()
    writes = (Write("/s/d/new", Change.CREATED), Write("/s/old", Change.CHANGED), Write("/s/earlier", Change.CHANGED))
    after = {**seen(upper), "/s/earlier": (1, 1, 1)}
    assert since({**before, "/s/earlier": (1, 1, 1)}, after, writes) == (writes[0], writes[1], Write("/s/gone", Change.DELETED))
