"""The keeper as a process, under a real gVisor: what it answers, what it covers, and that its twins end with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from enforcer.sandbox.client import Twins
from enforcer.sandbox.frames import QUESTION
from enforcer.sandbox.local import spawn_local
from enforcer.sandbox.mcp import Era
from enforcer.sandbox.plan import KeeperPlan
from escrow.call import Call, Transport
from escrow.policy import Policy
from escrow.principal import from_address
from escrow.sandbox.effects import Write
from escrow.sandbox.run import Run
from escrow.sandbox.settings import SandboxSettings
from tests.enforcer.sandbox.world import World, request, text, world

pytestmark = [pytest.mark.root, pytest.mark.runsc]
FILLED_S = 120.0
RULES = Policy().for_call("twin", "add")


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    """One folder for all keepers of this file: the first builds the template."""
    with world(pool=1, run_ms=8000, snapshot_ms=5000) as here:
        yield here


async def until(what: Callable[[], bool]) -> None:
    """What is seen from outside alone, and nothing tells of."""
    async with asyncio.timeout(60):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Keeper:
    """A running keeper and the client that asks it."""

    def __init__(self, plan: KeeperPlan) -> None:
        self.plan = plan
        self.near, self.process = spawn_local(plan)
        self.twins = Twins({**plan.servers, "another": next(iter(plan.servers.values()))})
        self.twins.add(self.near)

    async def shows(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask until it shows that of its server, in the session era."""
        async with asyncio.timeout(FILLED_S):
            while True:
                (server,) = [one for one in (await self.twins.show())["servers"] if one["era"] == Era.SESSION.value]
                if what(server):
                    return dict(server)
                await asyncio.sleep(0.1)

    async def ready(self) -> None:
        """Wait for a template: a pool is filled from the first call on."""
        await self.shows(lambda server: server["template"] is not None)

    async def filled(self) -> None:
        await self.ready()
        assert (await self.run(request("add", a=0, b=0))).outcome == "answered"
        await self.shows(lambda server: server["waiting"] > 0)

    async def run(self, raw: bytes, server: str = "twin") -> Run:
        call = Call(server, from_address("192.0.2.1"), None, Transport.SESSION, 7, "tools/call", "add", "a" * 64)
        return await (await self.twins.freeze(call, raw, RULES)).ran()

    def groups(self) -> list[Path]:
        return list(Path("/sys/fs/cgroup").glob(f"**/holdfast-twins/twin-{self.process.pid}-*"))

    async def ended(self) -> None:
        await until(lambda: self.process.poll() is not None)


@asynccontextmanager
async def keeper(made: World, hidden: tuple[Path, ...] = (), **changes: Any) -> AsyncIterator[Keeper]:
    plan = KeeperPlan({"twin": made.maker.settings.model_copy(update=changes)}, made.folder / "state" / "sandbox", (made.folder / "state", *hidden))
    running = Keeper(plan)
    try:
        yield running
    finally:
        await running.twins.close()
        try:
            await running.ended()
        finally:
            running.process.kill()
            running.process.wait(10)
        assert running.process.returncode in (0, -signal.SIGKILL)


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 240))


def test_a_call_runs_on_the_state_of_its_moment_and_what_it_did_is_told(made: World) -> None:
    async def scene() -> None:
        async with keeper(made) as one:
            await one.filled()
            (made.data / "notes.txt").write_text("as it is now")
            read, wrote = await one.run(request("read", path=f"{made.data}/notes.txt")), await one.run(request("write", path=f"{made.data}/new", text="x"))
            assert (read.outcome, read.pooled, text(read.answer)) == ("answered", True, "as it is now")
            assert f"{made.data}/new" in [write.path for write in wrote.effects.writes if isinstance(write, Write)]
            assert wrote.effects.complete and not (made.data / "new").exists()
            shown = await one.shows(lambda server: True)
            assert (shown["server"], shown["why"]) == ("twin", "") and shown["hits"] + shown["misses"] >= 3
            assert one.groups()
        assert one.groups() == [], "closing the socket is the order to end"

    play(scene)


def test_what_there_is_no_twin_for_is_absent_and_says_so(made: World) -> None:
    async def scene() -> None:
        async with keeper(made) as one:
            await one.ready()
            assert (await one.run(request("add", a=1, b=2), server="another")) == Run("absent", why="there is no twin of this server")

    play(scene)


def test_a_run_that_nobody_wants_any_more_ends_and_the_next_one_runs(made: World) -> None:
    async def scene() -> None:
        async with keeper(made) as one:
            await one.filled()
            call = Call("twin", from_address("192.0.2.1"), None, Transport.SESSION, 7, "tools/call", "sleep", "a" * 64)
            speculation = await one.twins.freeze(call, request("sleep", seconds=600), RULES)
            speculation.discard()
            assert await speculation.ran() == Run("absent", why="it was given up")
            assert text((await one.run(request("add", a=1, b=2))).answer) == "3"

    play(scene)


@pytest.mark.parametrize(
    "said", [QUESTION.pack(1, 9, 0, 0), QUESTION.pack(1, 1, 1, 0) + b"[", QUESTION.pack(1, 1, 0xFFFFFFFF, 0)], ids=["no phase", "no head", "too long"]
)
def test_what_is_no_question_ends_the_keeper_and_its_twins(made: World, said: bytes) -> None:
    async def scene() -> None:
        async with keeper(made) as one:
            await one.filled()
            await asyncio.get_running_loop().sock_sendall(one.near, said)
            await one.ended()
            assert one.groups() == []

    play(scene)


def test_a_keeper_that_is_killed_takes_its_twins_along_and_the_next_one_clears_up(made: World) -> None:
    async def scene() -> None:
        async with keeper(made) as one:
            await one.filled()
            one.process.kill()
            await one.ended()
            await until(lambda: not any((group / "cgroup.procs").read_text() for group in one.groups()))
            async with keeper(made) as other:
                await other.filled()
                assert one.groups() == []
                assert text((await other.run(request("add", a=1, b=2))).answer) == "3"

    play(scene)


def test_a_server_that_no_template_can_be_made_of_is_absent_with_the_reason(made: World) -> None:
    async def scene() -> None:
        async with keeper(made, command=("/bin/false",)) as one:
            why = (await one.shows(lambda server: not server["why"].startswith("its template is")))["why"]
            assert why and await one.run(request("add", a=1, b=2)) == Run("absent", why=why)

    play(scene)


def test_the_store_and_keys_are_covered_from_it_and_from_twins_and_its_own_folder_is_not(made: World) -> None:
    async def scene() -> None:
        (made.folder / "state" / "items.db").write_bytes(b"held")
        key = made.folder / "api.key"
        key.write_text("the key")
        async with keeper(made, hidden=(key,)) as one:
            await one.twins.show()
            root = Path(f"/proc/{one.process.pid}/root{made.folder}/state")
            assert os.listdir(root) == ["sandbox"] and (root / "sandbox" / "twin").is_dir()
            await one.ready()
            for path in (key, made.folder / "state" / "items.db"):
                run = await one.run(request("read", path=str(path)))
                assert run.outcome == "answered" and b"the key" not in (run.answer or b"") and b"held" not in (run.answer or b"")
        assert (made.folder / "state" / "items.db").read_bytes() == b"held"

    play(scene)


@pytest.mark.parametrize("kind", ["somebody else's", "open to all", "a link"])
def test_a_folder_that_is_not_roots_alone_is_not_taken(kind: str) -> None:
    with TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name, "sandbox")
        if kind == "a link":
            folder.symlink_to("/var/tmp")
        else:
            folder.mkdir()
            folder.chmod(0o777 if kind == "open to all" else 0o700)
            os.chown(folder, 0 if kind == "open to all" else 1000, 0)
        near, process = spawn_local(KeeperPlan({"twin": SandboxSettings(command=("/bin/true",))}, folder))
        with near:
            assert process.wait(30) == 1
            with pytest.raises(OSError):
                near.send(b"?")
