"""A template and a pool for each era of MCP that a server speaks: calls of both reach a twin of their own era."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from enforcer.sandbox import template
from enforcer.sandbox.frames import Asked
from enforcer.sandbox.kept import Kept
from enforcer.sandbox.mcp import Era, NotSpoken
from enforcer.sandbox.pool import Pool
from escrow.sandbox.run import Run
from tests.enforcer.sandbox.world import SERVER, World, request, text, world

pytestmark = [pytest.mark.root, pytest.mark.runsc]
BOUNDS = {"pool": 1, "run_ms": 8000, "snapshot_ms": 2000}


async def once(here: World, era: Era, raw: bytes) -> Run:
    maker = here.maker.of(era)
    pool = Pool(maker, template.load(maker, here.templates), here.templates, here.snapshots)
    try:
        return await pool.once(raw, 7)
    finally:
        await pool.close()


@pytest.mark.parametrize("transport", ["stdio", "json", "sse"])
def test_the_official_server_answers_in_both_eras_each_in_its_own_template(transport: str) -> None:
    arguments = () if transport == "stdio" else ("--http", "8000", transport)
    with world(*arguments, transport="stdio" if transport == "stdio" else "http", **BOUNDS) as here:
        made = [asyncio.run(template.build(here.maker.of(era), here.templates, here.snapshots, lambda text: None)) for era in Era]
        assert len({one.digest for one in made}) == 2
        for era in Era:
            run = asyncio.run(asyncio.wait_for(once(here, era, request("add", era, a=20, b=3)), 60))
            assert (run.outcome, text(run.answer), run.why) == ("answered", "23", "")
            assert ("resultType" in json.loads(run.answer or b"")["result"]) is (era is Era.STATELESS)
        if transport == "stdio":
            run = asyncio.run(asyncio.wait_for(once(here, Era.SESSION, request("add", Era.STATELESS, a=20, b=3)), 60))
            assert json.loads(run.answer or b"")["error"]["code"] == -32600


@pytest.mark.parametrize("method, spoken, other", [("initialize", Era.SESSION, Era.STATELESS), ("server/discover", Era.STATELESS, Era.SESSION)])
def test_a_server_of_one_era_has_no_template_of_the_other_and_says_so(method: str, spoken: Era, other: Era) -> None:
    with world(**BOUNDS) as here:
        command = (here.maker.settings.command[0], str(SERVER.with_name("one_era.py")), method)
        here = replace(here, maker=replace(here.maker, settings=here.maker.settings.model_copy(update={"command": command})))
        for era in Era:
            if era is spoken:
                asyncio.run(template.build(here.maker.of(era), here.templates, here.snapshots, lambda text: None))
                continue
            for make in (lambda: asyncio.run(template.build(here.maker.of(other), here.templates, here.snapshots, lambda text: None)), lambda: None):
                with pytest.raises(NotSpoken):
                    make()
                    template.load(here.maker.of(other), here.templates)
        assert template.load(here.maker.of(spoken), here.templates).era == spoken


def test_an_era_has_twins_from_its_first_call_on_and_not_before() -> None:
    with world(**BOUNDS) as here:
        (here.folder / "state" / "sandbox").mkdir()

        async def talk() -> tuple[Run, list[int], Run]:
            kept = Kept("twin", here.maker.settings, here.folder / "state" / "sandbox", (Path(here.folder / "state"),))
            kept.start()
            try:
                async with asyncio.timeout(60):
                    assert await kept.ready(50)
                    first = await kept.run(Asked("twin", 7, stateless=True), request("add", Era.STATELESS, a=1, b=2), lambda: None)
                    assert await kept.pools[Era.STATELESS].filled(30)
                    waiting = [row["waiting"] for row in kept.show()]
                    return first, waiting, await kept.run(Asked("twin", 7, stateless=True), request("add", Era.STATELESS, a=2, b=2), lambda: None)
            finally:
                await kept.close()

        first, waiting, second = asyncio.run(talk())
        assert (first.outcome, text(first.answer), first.pooled) == ("answered", "3", False)
        assert waiting == [0, 1]
        assert (second.outcome, text(second.answer), second.pooled) == ("answered", "4", True)
