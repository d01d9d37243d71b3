"""Twins under a real gVisor: what they answer, what they cannot reach, what bounds them, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from enforcer.sandbox import bundle, template
from enforcer.sandbox.bundle import CannotBundle, layout
from enforcer.sandbox.pool import Pool
from enforcer.sandbox.template import Template
from enforcer.sandbox.twin import Twin, sweep
from escrow.sandbox.run import Run
from escrow.sandbox.settings import SandboxSettings
from tests.enforcer.sandbox.world import World, request, text, world

pytestmark = [pytest.mark.root, pytest.mark.runsc]
BOUNDS = {"pool": 1, "run_ms": 4000, "snapshot_ms": 2000, "memory_mb": 128, "processes": 16, "file_mb": 1, "answer_bytes": 1 << 20}


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[World, Template]]:
    with world(**BOUNDS) as here:
        yield here, asyncio.run(template.build(here.maker, here.templates, here.snapshots, lambda text: None))


def calls(made: tuple[World, Template], *requests: bytes, fill: bool = False) -> list[Run]:
    """Each to a twin of its own; afterwards nothing of them may be left."""
    here, built = made

    async def talk() -> list[Run]:
        pool = Pool(here.maker, built, here.templates, here.snapshots)
        try:
            if fill:
                assert await pool.filled(30)
            return [await pool.once(one, 7) for one in requests]
        finally:
            await pool.close()
            assert pool.counts.left == 0

    runs = asyncio.run(asyncio.wait_for(talk(), 60))
    assert left(here.folder) == []
    return runs


def left(folder: Path) -> list[str]:
    """Processes, mounts, folders and groups of twins below a test's folder."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"runsc" in command and str(folder).encode() in command:
            found.append(str(path))
    return found + [str(path) for path in (folder / "state" / "twins").glob("*")]


def test_a_restored_twin_answers_and_starts_from_the_checkpoint_each_time(made: tuple[World, Template]) -> None:
    added, counted = calls(made, request("add", a=1, b=2), request("calls"))
    assert (added.outcome, text(added.answer), added.pooled, added.effects.complete) == ("answered", "3", False, True)
    assert text(counted.answer) == "0"


def test_a_pooled_twin_sees_what_was_written_after_it_was_restored_and_writes_nothing_real(made: tuple[World, Template]) -> None:
    here, built = made
    note = here.data / "notes.txt"

    async def talk() -> tuple[Run, Run]:
        pool = Pool(here.maker, built, here.templates, here.snapshots)
        try:
            assert await pool.filled(30)
            note.write_text("written later")
            read = await pool.run(request("read", path=str(note)), 7)
            assert await pool.filled(30)
            return read, await pool.run(request("write", path=str(note), text="by the twin"), 7)
        finally:
            await pool.close()

    read, written = asyncio.run(asyncio.wait_for(talk(), 60))
    assert (read.pooled, text(read.answer)) == (True, "written later")
    assert (written.pooled, text(written.answer), note.read_text()) == (True, "written", "written later")
    assert [write.path for write in written.effects.writes] == [str(note)]
    assert left(here.folder) == []


def test_what_lies_beside_the_state_is_seen_and_what_is_hidden_is_not(made: tuple[World, Template]) -> None:
    here, _ = made
    looked = (here.folder / "covered", here.folder / "state")
    beside, hidden, own = calls(made, request("read", path=str(here.data.parent / "beside.txt")), *(request("look", path=str(path)) for path in looked))
    assert (text(beside.answer), text(hidden.answer), text(own.answer)) == ("beside", "", "")


def test_what_holds_our_own_folders_is_not_shown_beside_the_state(tmp_path: Path) -> None:
    for name in ("data", "ours/state", "theirs"):
        (tmp_path / name).mkdir(parents=True)
    settings = SandboxSettings.model_validate({"command": ["server"], "hidden": [], "state": [{"kind": "directory", "path": str(tmp_path / "data")}]})
    assert layout(settings, (tmp_path / "ours" / "state",)).beside == (str(tmp_path / "theirs"),)


def test_there_is_no_way_out_and_the_attempt_is_told(made: tuple[World, Template]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()  # the same outside
        listening.accept()[0].close()
        (local, far) = calls(made, request("connect", host="127.0.0.1", port=port), request("connect", host="192.0.2.1", port=80))
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert "connected" not in text(local.answer) + text(far.answer)
    assert (far.network, [(connect.address, connect.port) for connect in far.effects.connects]) == (True, [("192.0.2.1", 80)])


@pytest.mark.parametrize("tool, arguments", [("eat", {"megabytes": 1024}), ("bomb", {})])
def test_a_twin_that_takes_more_than_its_bounds_is_ended(made: tuple[World, Template], tool: str, arguments: dict[str, object]) -> None:
    (run,) = calls(made, request(tool, **arguments))
    assert run.outcome in ("failed", "late")
    assert run.answer is None


def test_memory_within_the_bounds_is_given(made: tuple[World, Template]) -> None:
    assert [text(run.answer) for run in calls(made, request("eat", megabytes=16))] == ["ate"]


def test_a_file_larger_than_its_bound_is_not_written(made: tuple[World, Template]) -> None:
    here, _ = made
    small, large = calls(made, *(request("write", path=str(here.data / "new"), text="x" * size) for size in (1000, 700_000)))
    assert text(small.answer) == text(large.answer) == "written"
    (over,) = calls(made, request("fill", path=str(here.data / "new"), megabytes=2))
    assert "filled" not in text(over.answer) if over.answer else over.outcome == "failed"


def test_an_answer_that_does_not_come_is_late_and_one_too_large_is_refused(made: tuple[World, Template]) -> None:
    here, built = made
    hasty = replace(here, maker=replace(here.maker, settings=here.maker.settings.model_copy(update={"run_ms": 300})))
    (late,) = calls((hasty, built), request("sleep", seconds=30))
    (large,) = calls(made, request("big", size=4 << 20))
    assert (late.outcome, late.answer) == ("late", None)
    assert (large.outcome, large.answer, large.why) == ("failed", None, "the twin wrote more than answer_bytes")


def test_a_template_that_was_changed_is_not_used(made: tuple[World, Template]) -> None:
    here, built = made
    assert template.load(here.maker, here.templates) == built
    pages = here.templates / built.digest / "image" / "pages.img"
    was = pages.read_bytes()
    pages.write_bytes(was[:-1] + bytes([was[-1] ^ 1]))
    try:
        with pytest.raises(template.NoTemplate, match="not those that were built"):
            template.load(here.maker, here.templates)
    finally:
        pages.write_bytes(was)
    other = replace(here.maker, settings=here.maker.settings.model_copy(update={"environment": {"A": "b"}}))
    with pytest.raises(template.NoTemplate, match="no template of these settings"):
        template.load(other, here.templates)


@pytest.mark.parametrize(
    "arguments, directory, why",
    [((), "DATA", "working directory"), (("--hold", "DATA/notes.txt"), "/", "holds .*notes.txt open"), (("--fail",), "/", "the twin's process ended")],
)
def test_a_template_that_could_not_be_right_is_refused(arguments: tuple[str, ...], directory: str, why: str) -> None:
    with world(*arguments, directory=directory, **BOUNDS) as here:
        with pytest.raises(template.CannotBuild, match=why):
            asyncio.run(template.build(here.maker, here.templates, here.snapshots, lambda text: None))
        assert left(here.folder) == []


def test_what_a_killed_process_left_is_swept(made: tuple[World, Template]) -> None:
    here, built = made
    image = here.templates / built.digest / "image"
    child = os.fork()
    if child == 0:

        async def die() -> None:
            twin = await Twin.start(here.maker, image)
            await twin.ready(30)
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(die())
    os.waitpid(child, 0)
    assert left(here.folder) != []
    assert sweep(here.maker) == 0
    assert left(here.folder) == []


@pytest.mark.parametrize("kind", ["json", "sse"])
def test_a_server_that_speaks_http_is_reached_inside(kind: str) -> None:
    with world("--http", "8000", kind, transport="http", **BOUNDS) as here:
        built = asyncio.run(template.build(here.maker, here.templates, here.snapshots, lambda text: None))
        (run,) = calls((here, built), request("add", a=20, b=3))
        assert (run.outcome, text(run.answer), run.network) == ("answered", "23", False)


def test_a_command_in_a_folder_that_the_twin_sees_empty_is_refused() -> None:
    settings = SandboxSettings.model_validate({"command": ("/home/somebody/server",), "hidden": ("/home",)})
    with pytest.raises(CannotBundle, match="the command lies in /home"):
        bundle.layout(settings, ())
    assert bundle.layout(settings.model_copy(update={"hidden": ()}), ()).hidden == ()
