"""Look-ups of users and hosts in a twin: glibc asks for a cache of names first, and that alone makes no run incomplete."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from enforcer.sandbox import template
from enforcer.sandbox.pool import Pool
from enforcer.sandbox.snapshots import StateSnapshots
from escrow.sandbox.run import Run
from tests.enforcer.sandbox.world import World, request, text, world

pytestmark = [pytest.mark.root, pytest.mark.runsc]


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[World, template.Template]]:
    with world(pool=0, snapshot_ms=5000, run_ms=20_000) as here:
        yield here, asyncio.run(template.build(here.maker, here.templates, StateSnapshots(here.maker.settings), lambda text: None))


def run(made: tuple[World, template.Template], tool: str, **arguments: object) -> Run:
    here, template_ = made

    async def once() -> Run:
        pool = Pool(here.maker, template_, here.templates, StateSnapshots(here.maker.settings))
        try:
            return await pool.once(request(tool, **arguments), 7)
        finally:
            await pool.close()

    return asyncio.run(once())


@pytest.mark.parametrize("tool, asked, answer", [("user", {"uid": 0}, "root"), ("host", {"name": "localhost"}, "127.0.0.1")])
def test_a_look_up_that_files_answer_is_a_whole_run(made: tuple[World, template.Template], tool: str, asked: dict[str, object], answer: str) -> None:
    found = run(made, tool, **asked)
    assert text(found.answer) in (answer, "::1")
    assert found.effects.complete and not found.network, found.effects.incomplete


@pytest.mark.parametrize("path", ["/run/docker.sock", "/var/run/dbus/system_bus_socket", "/tmp/none", "/run/nscd-like/socket"])
def test_another_socket_that_is_not_there_leaves_it_incomplete(made: tuple[World, template.Template], path: str) -> None:
    found = run(made, "redis", path=path, words="ping")
    assert found.effects.incomplete == ("a Unix socket that it could not reach: the trace does not show its path",)


def test_the_cache_itself_is_not_reached(made: tuple[World, template.Template]) -> None:
    found = run(made, "redis", path="/var/run/nscd/socket", words="ping")
    assert b"isError" in (found.answer or b"") and found.effects.complete


def test_a_socket_file_of_the_root_is_not_taken_for_the_cache(made: tuple[World, template.Template]) -> None:
    here, _ = made
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(here.folder / "other.sock"))
        listener.listen()
        found = run(made, "redis", path=str(here.folder / "other.sock"), words="ping")
        assert b"isError" in (found.answer or b"") and not found.effects.complete
