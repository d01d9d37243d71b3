"""The store's files held by another process: bounded waits, refusals with words, and everything as before once they are free."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from enforcer.evidence.files import folder_of
from tests.faults import world
from tests.faults.world import Refused, Upstream, items, new_item
from tests.real import gate as gates
from tests.real.conftest import FULL
from tests.real.gate import HOLDFAST, Gate

NAMES = ("items.db", "keys.db")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with world.upstream(tmp_path_factory.mktemp("upstream") / "server") as running:
        yield running


@pytest.fixture(scope="module")
def gate(server: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with gates.run(tmp_path_factory.mktemp("locked"), server.port, policy=world.ONE_WORKER) as running:
        yield running


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else writes to the database (nor reads it, where it has no WAL)."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield
        database.execute("ROLLBACK")


@pytest.mark.parametrize("name", NAMES)
def test_a_result_that_cannot_be_stored_is_refused_and_clean_ones_go_on(name: str, gate: Gate, server: Upstream) -> None:
    known = set(items(gate))
    world.assert_served(gate.port)
    with locked(gate.directory / "state" / name):
        answer = world.ask_once(gate.port, "hostile", key=f"locked-{name}")
        assert b"error" in answer.lower() and not world.leaked(answer), answer
        world.assert_served(gate.port)
    assert server.runs(f"locked-{name}") == 1 and set(items(gate)) == known
    world.assert_served(gate.port)


@pytest.mark.parametrize("name", NAMES if FULL else NAMES[1:])
def test_a_decision_meanwhile_is_refused_and_can_be_taken_later(name: str, gate: Gate, server: Upstream) -> None:
    known, key = set(items(gate)), f"decided-{name}"
    assert not world.leaked(world.ask_once(gate.port, "hostile", key=key))
    item = new_item(gate, known)
    with locked(gate.directory / "state" / name):
        assert isinstance(world.approve(gate, item), Refused)
    assert items(gate)[item["id"]]["state"] == "held"
    assert not world.leaked(world.ask_once(gate.port, "hostile", key=key))
    assert world.approve(gate, item)["state"] == "approved"
    assert world.leaked(world.ask_once(gate.port, "hostile", key=key)) and server.runs(key) == 1


def test_what_was_approved_and_cannot_be_read_for_now_comes_out_later(gate: Gate, server: Upstream) -> None:
    known = set(items(gate))
    assert not world.leaked(world.ask_once(gate.port, "hostile", key="unreadable"))
    item = new_item(gate, known)
    assert world.approve(gate, item)["state"] == "approved"
    with locked(gate.directory / "state" / "keys.db"):
        assert not world.leaked(world.ask_once(gate.port, "hostile", key="unreadable"))
    assert world.leaked(world.ask_once(gate.port, "hostile", key="unreadable")), "it is stuck"
    assert server.runs("unreadable") == 1


@pytest.mark.parametrize("name", NAMES if FULL else NAMES[:1])
def test_a_start_on_a_locked_store_ends_with_words(name: str, server: Upstream, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with locked(tmp_path / "state" / name):
        done = _start(tmp_path, server)
    assert done.returncode == 1 and f"{name} cannot be opened: database is locked" in done.stderr, done.stderr


@pytest.mark.root
def test_a_start_on_a_log_that_cannot_be_written_ends_with_words(server: Upstream, tmp_path: Path) -> None:
    with gates.run(tmp_path, server.port, policy=world.ONE_WORKER) as gate:
        world.assert_served(gate.port)
    segment = next(folder_of(tmp_path / "state").glob("entries-*"))
    if subprocess.run(["chattr", "+i", str(segment)], capture_output=True).returncode != 0:
        pytest.skip("the file system has no immutable files")
    try:
        done = _start(tmp_path, server)
    finally:
        subprocess.run(["chattr", "-i", str(segment)], check=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "evidence" in done.stderr, done.stderr


def _start(folder: Path, server: Upstream) -> subprocess.CompletedProcess[str]:
    """A proxy that is expected to end by itself, soon."""
    began = time.monotonic()
    command = [str(HOLDFAST), "proxy", "--listen", "127.0.0.1:0", "--upstream", f"http://127.0.0.1:{server.port}", "--mcp-listen", "none"]
    directories = ["--state-dir", str(folder / "state"), "--runtime-dir", str(folder / "run")]
    done = subprocess.run([*command, *directories], capture_output=True, text=True, timeout=world.LIMIT_S, stdin=subprocess.DEVNULL)
    assert time.monotonic() - began < world.LIMIT_S
    return done
