"""The way back, end to end: a real call ruins real files and a database, is held and denied, and the state's bytes are as they were."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.real.twins import World, world

pytestmark = [pytest.mark.root, pytest.mark.runsc]


def ruin(live: World, **more: object) -> None:
    """A call that is another each time: a denial stands for the exact call."""
    live.client.call("ruin", folder=str(live.data), mark=secrets.token_hex(4), **more)


def looks(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def live() -> Iterator[World]:
    with world(sandbox="revert = true") as made:
        yield made


@pytest.fixture
def ruined(live: World) -> Iterator[tuple[dict[str, Any], dict[str, tuple[int, bytes]]]]:
    """A held call that has run, and what the state was before: it also wrote outside of it, so that it is held."""
    (live.data / "notes.txt").write_text("as it was")
    (live.data / "kept.bin").write_bytes(bytes(range(256)) * 5000)
    was, known = looks(live.data), live.gate.known()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(ruin, live)
        item = live.gate.wait_item(known, state="held")
        assert looks(live.data) != was and item["revertible"], item
        live.gate.deny(item)
    yield item, was
    (live.data / "foreign").unlink(missing_ok=True)


def entries(live: World, item: dict[str, Any]) -> list[tuple[str, str]]:
    log = json.loads(live.gate.holdfast("audit", "tail", "-n", "1000", "--json"))
    return [(entry["outcome"], entry["why"]) for entry in log if entry["event"] == "reverted" and entry["item"] == item["id"]]


def test_a_denied_call_is_put_back_to_the_byte(live: World, ruined: tuple[dict[str, Any], dict[str, tuple[int, bytes]]]) -> None:
    item, was = ruined
    plan = json.loads(live.gate.holdfast("escrow", "revert", item["id"], "-m", "look", "--json"))
    assert {(Path(each["path"]).name, each["change"]) for each in plan["changes"]} >= {
        ("notes.txt", "changed"),
        ("kept.bin", "created"),
        ("new.txt", "deleted"),
    }
    assert looks(live.data) != was and entries(live, item) == []
    shown = live.gate.holdfast("escrow", "revert", item["id"], "-m", "it ruined the notes", "--yes")
    assert "comes back" in shown and "the state is as it was before the call" in shown
    assert looks(live.data) == was
    assert entries(live, item) == [("begun", "it ruined the notes"), ("done", "it ruined the notes")]
    [row] = live.gate.items(id=item["id"])
    assert row["state"] == "denied" and row["reverted_by"].endswith("(uid 0)") and not row["revertible"]
    assert "put back" in live.gate.holdfast("escrow", "show", item["id"])
    again = live.gate.holdfast("escrow", "revert", item["id"], "-m", "again", "--yes", check=False)
    assert again == "" and len(entries(live, item)) == 2


def test_it_asks_first_and_without_a_yes_nothing_is_done(live: World, ruined: tuple[dict[str, Any], dict[str, tuple[int, bytes]]]) -> None:
    item, was = ruined
    asked = live.gate.holdfast("escrow", "revert", item["id"], "-m", "w", check=False)  # its standard input is empty
    assert "notes.txt" in asked and looks(live.data) != was and entries(live, item) == []


def test_where_something_else_has_written_it_is_refused_by_the_files_name(
    live: World, ruined: tuple[dict[str, Any], dict[str, tuple[int, bytes]]], capfd: pytest.CaptureFixture[str]
) -> None:
    item, _ = ruined
    (live.data / "foreign").write_text("another's")
    left = looks(live.data)
    with pytest.raises(AssertionError, match=f"something else has written to {live.data}/foreign since"):
        live.gate.holdfast("escrow", "revert", item["id"], "-m", "w", "--yes")
    assert looks(live.data) == left and entries(live, item) == []


def test_a_call_held_before_it_ran_has_nothing_to_put_back(live: World) -> None:
    known = live.gate.known()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(
            live.client.call, "write", path=str(live.data / "notes.txt"), text="key AKIAQ2N7RXL4WBDHT5KD secret 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"
        )
        item = live.gate.wait_item(known, state="held")
        live.gate.deny(item)
    with pytest.raises(AssertionError, match="the call has not run"):
        live.gate.holdfast("escrow", "revert", item["id"], "-m", "w", "--yes")


def test_an_item_that_is_not_denied_is_not_put_back_and_what_is_released_leaves_no_clone(live: World) -> None:
    clones = live.folder / "state" / "sandbox" / "files" / "reverts"
    before = set(clones.iterdir())
    answer = live.client.call("write", path=str(live.data / "notes.txt"), text="fine")
    assert answer["result"]["structuredContent"] == {"result": "written"}
    live.settle(lambda: set(clones.iterdir()) == before, "the clone of a call that was released stays")
    known = live.gate.known()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(ruin, live)
        item = live.gate.wait_item(known, state="held")
        with pytest.raises(AssertionError, match="deny it first"):
            live.gate.holdfast("escrow", "revert", item["id"], "-m", "w", "--yes")
        live.gate.approve(item)
    live.settle(lambda: set(clones.iterdir()) == before, "the clone of a call that was approved stays")


def test_two_calls_at_once_cannot_be_told_apart(live: World) -> None:
    known = live.gate.known()
    with ThreadPoolExecutor(2) as thread:
        thread.submit(ruin, live, seconds=2)
        thread.submit(live.client.call, "add", a=1, b=2)
        item = live.gate.wait_item(known, state="held")
        live.gate.deny(item)
    with pytest.raises(AssertionError, match="another call that may write ran at the same time"):
        live.gate.holdfast("escrow", "revert", item["id"], "-m", "w", "--yes")


def test_a_clone_outlives_a_killed_daemon(live: World, ruined: tuple[dict[str, Any], dict[str, tuple[int, bytes]]]) -> None:
    item, was = ruined
    os.killpg(live.gate.program.process.pid, signal.SIGKILL)
    live.gate.program.process.wait()
    live.gate.start_again()
    live.filled()
    live.gate.holdfast("escrow", "revert", item["id"], "-m", "after the crash", "--yes")
    assert looks(live.data) == was
    live.client.begin()


def test_a_database_comes_back_with_its_directory(tmp_path: Path) -> None:
    state = '[[servers.files.sandbox.state]]\nkind = "directory"\npath = "DATA"\n[[servers.files.sandbox.state]]\nkind = "sqlite"\npath = "DATA/base.db"\n'

    def rows(base: Path) -> list[Any]:
        with closing(sqlite3.connect(base)) as database:
            return database.execute("select * from t").fetchall()

    def prepare(data: Path) -> None:
        with closing(sqlite3.connect(data / "base.db", isolation_level=None)) as database:
            database.execute("pragma journal_mode = wal")
            database.execute("create table t (n)")
            database.execute("insert into t values (1), (2)")

    with world(state=state, sandbox="revert = true", prepare=prepare) as live, ThreadPoolExecutor(1) as thread:
        was = rows(live.data / "base.db")
        thread.submit(ruin, live, base=str(live.data / "base.db"))
        item = live.gate.wait_item(set(), state="held")
        assert rows(live.data / "base.db") == []
        live.gate.deny(item)
        live.gate.holdfast("escrow", "revert", item["id"], "-m", "it emptied the table", "--yes")
        assert rows(live.data / "base.db") == was == [(1,), (2,)]
        assert (live.data / "notes.txt").read_text() == "as it was"
