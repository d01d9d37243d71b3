"""The way back: real directories and SQLite databases, and a revert that is killed at every step."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from enforcer.sandbox import revert
from enforcer.sandbox.revert import Plan, Taken
from escrow.sandbox.effects import Change, Write
from escrow.sandbox.settings import Directory, Redis, Sqlite, State

pytestmark = pytest.mark.root
FILE = stat.S_IFREG | 0o644


def soon() -> float:
    return time.monotonic() + 10


def ran(base: Path, *statements: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(base, isolation_level=None)) as database:
        return [row for statement in statements for row in database.execute(statement).fetchall()]


def looks(folder: Path) -> dict[str, tuple[int, int, str]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.name.startswith("base.db"):
            status = path.lstat()
            text = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
            found[str(path.relative_to(folder))] = (status.st_mode, status.st_uid, text)
    return found


class Server:
    """What a guarded server has, and a call that ruins it."""

    def __init__(self, folder: Path, mode: str = "wal") -> None:
        self.live, self.state = folder / "live", folder / "holdfast"
        self.state.mkdir(parents=True)
        for inner in ("kept", "gone/deep"):
            (self.live / inner).mkdir(parents=True)
        for name in ("kept/same", "kept/changed", "gone/deep/file", "becomes-folder"):
            (self.live / name).write_text(name)
        (self.live / "becomes-file").mkdir()
        (self.live / "link").symlink_to("kept")
        os.chown(self.live / "gone", 1234, 1234)
        self.base = self.live / "base.db"
        ran(self.base, f"pragma journal_mode={mode}", "create table t (n)", "insert into t values (1)")
        self.states: tuple[State, ...] = (Directory(path=str(self.live)), Sqlite(kind="sqlite", path=str(self.base)))
        self.was = looks(self.live)

    def call(self) -> None:
        (self.live / "kept" / "changed").write_text("ruined")
        (self.live / "gone" / "deep" / "file").unlink()
        (self.live / "gone" / "deep").rmdir()
        (self.live / "gone").rmdir()
        (self.live / "becomes-folder").unlink()
        (self.live / "becomes-folder" / "inner").mkdir(parents=True)
        (self.live / "becomes-file").rmdir()
        (self.live / "becomes-file").write_text("x")
        (self.live / "link").unlink()
        (self.live / "link").symlink_to("/etc")
        (self.live / "kept").chmod(0o777)
        ran(self.base, "delete from t", "create table more (n)")

    def taken(self) -> str:
        taken = revert.take(self.state, self.states, soon())
        assert taken.token is not None, taken.why
        return taken.token

    def ruined(self) -> str:
        token = self.taken()
        self.call()
        assert revert.settle(self.state, token, soon()) == ""
        return token

    def is_back(self) -> bool:
        return looks(self.live) == self.was and ran(self.base, "select n from t", "select name from sqlite_master") == [(1,), ("t",)]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_the_plan_is_what_the_revert_does(mode: str, tmp_path: Path) -> None:
    server = Server(tmp_path, mode)
    token = server.ruined()
    plan = revert.plan(server.state, token, soon())
    assert Write(f"{server.live}/kept/changed", Change.CHANGED, FILE) in plan.changes
    assert Write(f"{server.live}/becomes-folder/inner", Change.DELETED) in plan.changes
    assert Write(str(server.base), Change.CHANGED, FILE) in plan.changes
    assert not server.is_back()
    assert revert.revert(server.state, token, soon()) == replace(plan, done=True)
    assert server.is_back()
    assert revert.revert(server.state, token, soon()).refused == "it has been put back already"


def test_a_call_that_changed_nothing_leaves_nothing_to_do(tmp_path: Path) -> None:
    server = Server(tmp_path)
    token = server.taken()
    assert revert.settle(server.state, token, soon()) == ""
    assert revert.plan(server.state, token, soon()) == Plan()


@pytest.mark.parametrize(
    "write, place",
    [
        (lambda server: (server.live / "kept" / "same").write_text("other"), "kept/same"),
        (lambda server: (server.live / "new").touch(), "new"),
        (lambda server: (server.live / "kept" / "changed").unlink(), "kept/changed"),
        (lambda server: (server.live / "kept" / "same").chmod(0o600), "kept/same"),
        (lambda server: ran(server.base, "insert into t values (9)"), "base.db"),
    ],
    ids=["changed", "created", "deleted", "mode", "database"],
)
def test_it_refuses_where_something_else_has_written_since(write: Callable[[Server], object], place: str, tmp_path: Path) -> None:
    server = Server(tmp_path)
    token = server.ruined()
    write(server)
    left = looks(server.live)
    refused = Plan(refused=f"something else has written to {server.live / place} since")
    assert revert.plan(server.state, token, soon()) == refused == revert.revert(server.state, token, soon())
    assert looks(server.live) == left


def test_without_a_look_right_after_the_call_there_is_no_way_back(tmp_path: Path) -> None:
    server = Server(tmp_path)
    token = server.taken()
    server.call()
    assert revert.revert(server.state, token, soon()).refused == "what the call left was not recorded: nothing can be told from what came later"


@pytest.mark.parametrize("token", ["0" * 32, "../../etc", "", "x" * 32])
def test_other_tokens_are_refused(token: str, tmp_path: Path) -> None:
    assert revert.plan(tmp_path, token, soon()) == Plan(refused="there is no such clone")


def test_redis_and_late_clones_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path)
    redis = Redis(kind="redis", url="unix:///run/redis.sock", socket="/run/r.sock")
    assert revert.take(server.state, (*server.states, redis), soon()) == Taken(None, "a redis state cannot be put back")
    assert revert.take(server.state, server.states, time.monotonic() - 1).token is None
    assert list((server.state / "reverts").iterdir()) == []


def test_records_are_ours_alone(tmp_path: Path) -> None:
    server = Server(tmp_path)
    record = server.state / "reverts" / server.ruined()
    assert stat.S_IMODE(record.stat().st_mode) == stat.S_IMODE(record.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in record.glob("*.json")} == {0o600}


STEPS = ("rename", "unlink", "rmdir", "mkdir", "symlink", "fchown", "fchmod", "fsync")


def killed_at(step: int, run: Callable[[], object]) -> bool:
    """Runs it in a process that is gone at the given system call; whether it got there."""
    child = os.fork()
    if child == 0:
        left = step
        for name in STEPS:

            def counted(*given: object, _real: Callable[..., object] = getattr(os, name), **named: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), 9)
                return _real(*given, **named)

            setattr(os, name, counted)
        run()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9


def test_a_revert_killed_at_any_step_goes_on(tmp_path: Path) -> None:
    for step in range(1, 200):
        server = Server(tmp_path / str(step))
        token = server.ruined()
        if not killed_at(step, lambda server=server, token=token: revert.revert(server.state, token, soon())):
            assert server.is_back() and step > 20
            return
        again = revert.revert(server.state, token, soon())
        assert again.refused in ("", "it has been put back already"), step
        assert server.is_back(), step
    pytest.fail("it did not end")


def test_a_revert_cut_off_still_refuses_what_another_wrote(tmp_path: Path) -> None:
    server = Server(tmp_path)
    token = server.ruined()
    assert killed_at(12, lambda: revert.revert(server.state, token, soon()))
    (server.live / "kept" / "same").write_text("other")
    assert revert.revert(server.state, token, soon()).refused == f"something else has written to {server.live}/kept/same since"
