"""A SQLite database's copy, while others have it open."""

from __future__ import annotations

import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path

import pytest

from enforcer.sandbox.state.frozen import NotFrozen
from enforcer.sandbox.state.sqlite import copy


def rows(path: Path) -> list[tuple[int]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("select n from t order by n").fetchall()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_what_was_committed_is_there_and_what_comes_later_is_not(mode: str, tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    with closing(sqlite3.connect(live, isolation_level=None)) as database:
        database.execute(f"pragma journal_mode={mode}")
        database.execute("create table t (n)")
        database.execute("insert into t values (1)")
        if mode == "wal":
            database.execute("begin")
            database.execute("insert into t values (2)")
        live.chmod(0o640)
        copy(str(live), tmp_path / "copy.db", time.monotonic() + 5)
        if mode == "wal":
            database.execute("commit")
        database.execute("insert into t values (3)")
    assert rows(tmp_path / "copy.db") == [(1,)]
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o640


def test_a_database_that_is_locked_too_long_is_late(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    with closing(sqlite3.connect(live, isolation_level=None)) as database:
        database.execute("create table t (n)")
        database.execute("begin exclusive")
        began = time.monotonic()
        with pytest.raises(NotFrozen):
            copy(str(live), tmp_path / "copy.db", began + 0.1)
        assert time.monotonic() - began < 2


def test_no_database_and_a_link_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to look at" * 100)
    (tmp_path / "link").symlink_to(tmp_path / "text")
    for name in ("none", "text", "link"):
        with pytest.raises(NotFrozen):
            copy(str(tmp_path / name), tmp_path / f"copy-{name}", time.monotonic() + 1)
