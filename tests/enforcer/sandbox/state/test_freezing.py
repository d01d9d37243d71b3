"""All of a server's state together."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from enforcer.sandbox.state.freezing import discard, freeze
from enforcer.sandbox.state.frozen import Mount
from escrow.sandbox.settings import Directory, Postgres, Sqlite

pytestmark = pytest.mark.root


@pytest.fixture
def live(tmp_path: Path) -> Path:
    folder = tmp_path / "live"
    folder.mkdir()
    (folder / "file").write_text("before")
    with closing(sqlite3.connect(folder / "base.db", isolation_level=None)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table t (n)")
    return folder


def test_what_is_written_after_the_freeze_is_not_in_it(live: Path, tmp_path: Path) -> None:
    frozen = freeze((Directory(path=str(live), at="/srv"),), tmp_path / "f", time.monotonic() + 5)
    (live / "file").write_text("after")
    assert frozen.complete and frozen.mounts == (Mount(tmp_path / "f" / "0", "/srv"),) and frozen.took_ms > 0
    assert (frozen.mounts[0].lower / "file").read_text() == "before"
    discard(frozen)
    assert not (tmp_path / "f").exists()


def test_a_database_within_a_directory_is_put_into_its_copy(live: Path, tmp_path: Path) -> None:
    (live / "base.db-wal").write_bytes(b"left by someone")
    states = (Sqlite(kind="sqlite", path=str(live / "base.db"), at="/srv/base.db"), Directory(path=str(live), at="/srv"))
    frozen = freeze(states, tmp_path / "f", time.monotonic() + 5)
    assert frozen.why == "" and [mount.at for mount in frozen.mounts] == ["/srv"]
    assert sorted(path.name for path in frozen.mounts[0].lower.iterdir() if path.name.startswith("base")) == ["base.db"]


def test_a_database_alone_has_a_folder_of_its_own(live: Path, tmp_path: Path) -> None:
    frozen = freeze((Sqlite(kind="sqlite", path=str(live / "base.db")),), tmp_path / "f", time.monotonic() + 5)
    assert frozen.mounts == (Mount(tmp_path / "f" / "0", str(live)),)
    assert [path.name for path in frozen.mounts[0].lower.iterdir()] == ["base.db"]


def test_late_and_impossible_are_values_and_leave_nothing(live: Path, tmp_path: Path) -> None:
    good = Directory(path=str(live))
    late = freeze((good,), tmp_path / "f", time.monotonic() - 1)
    assert not late.complete and late.why == "the state could not be frozen in its time"
    gone = freeze((good, Directory(path=str(tmp_path / "none"))), tmp_path / "f", time.monotonic() + 5)
    assert gone.why == "the directory could not be copied: No such file or directory" and gone.mounts == ()
    base = freeze((good, Postgres(kind="postgres", url="postgresql:///x", socket="/run/postgresql")), tmp_path / "f", time.monotonic() + 5)
    assert base.why == "PostgreSQL databases are not copied yet"
    twice = freeze((good, good), tmp_path / "f", time.monotonic() + 5)
    assert twice.why == "two states have one place in the twin"
    assert not (tmp_path / "f").exists()
