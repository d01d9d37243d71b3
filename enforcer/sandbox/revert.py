"""The way back: a clone taken before a real call, kept under a token, and put in the state's place where nothing else has written since.

    take      before the call: clones of directories and SQLite databases; Redis and PostgreSQL are refused
    settle    right after it: what the state then is
    plan      what a revert would change, or why there is none
    revert    does that
    forget    without

A record is a folder of the state folder, `reverts/TOKEN` (0700, its files 0600): `before.json` with the clones in `clones/N`, `after.json`,
`began` once a revert has begun, `done` once it has ended. Each is whole or not there (written beside, synced, renamed). A revert that was cut off goes on
where it was: from `began` on, each path may be as it was before the call or after it, and nothing else. Whether something else writes is looked at
before, not while: a writer in that instant is overwritten. Hard links become files of their own; times are not put back on folders.
"""

from __future__ import annotations

import fcntl
import json
import os
import posixpath
import re
import secrets
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from enforcer.sandbox import manifest
from enforcer.sandbox.manifest import Manifest
from enforcer.sandbox.putting_back import put_back, put_back_database, temporary
from enforcer.sandbox.state import directory, sqlite
from enforcer.sandbox.state.frozen import NotFrozen
from escrow.sandbox.effects import Write
from escrow.sandbox.settings import Directory, Sqlite, State

_TOKEN = re.compile(r"[0-9a-f]{32}")
_BESIDE = ("", "-wal", "-shm", "-journal")


class _Kept(BaseModel):
    """One state of a record. skip: paths below a directory that are a database's of the same record."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["directory", "sqlite"]
    path: str
    skip: frozenset[str] = frozenset()
    manifest: Manifest = {}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    states: tuple[_Kept, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """token: None where there is no clone, and why."""

    token: str | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """changes: what a revert would do to the real state, paths as the host has them. refused: why it would do nothing; "" where it would.

    A revert gives the same value: what it did, or why it did nothing or did not end.
    """

    changes: tuple[Write, ...] = ()
    refused: str = ""
    done: bool = False
    """Whether it is put back, by this or by an earlier revert."""


class _Done(NotFrozen):
    """It has been put back already."""


def _now(state: _Kept, path: str, until: float) -> Manifest:
    return manifest.of_directory(path, state.skip, until) if state.kind == "directory" else manifest.of_sqlite(path, until)


def take(folder: Path, states: tuple[State, ...], until: float) -> Taken:
    """folder: Holdfast's state folder. until: on `time.monotonic()`."""
    token = secrets.token_hex(16)
    record = folder / "reverts" / token
    try:
        kept = _named(states)
        (record / "clones").mkdir(0o700, parents=True)
        for place in (folder / "reverts", record):
            place.chmod(0o700)
        whole = []
        for number, state in enumerate(kept):
            clone = record / "clones" / str(number)
            if state.kind == "directory":
                directory.copy(state.path, str(clone), until)
            else:
                sqlite.copy(state.path, clone, until)
            whole.append(state.model_copy(update={"manifest": _now(state, str(clone), until)}))
        _write(record / "before.json", _Record(states=tuple(whole)).model_dump_json())
        return Taken(token)
    except NotFrozen as why:
        error = str(why)
    except OSError as failed:
        error = f"no clone could be kept: {failed.strerror or failed}"
    shutil.rmtree(record, ignore_errors=True)
    return Taken(None, error)


def _named(states: tuple[State, ...]) -> list[_Kept]:
    databases = [posixpath.normpath(state.path) for state in states if isinstance(state, Sqlite)]
    kept = []
    for state in states:
        path = posixpath.normpath(state.path) if isinstance(state, Directory | Sqlite) else ""
        if isinstance(state, Directory):
            inside = [posixpath.relpath(base, path) for base in databases if base.startswith(path.rstrip("/") + "/")]
            kept.append(_Kept(kind="directory", path=path, skip=frozenset(base + end for base in inside for end in _BESIDE)))
        elif isinstance(state, Sqlite):
            kept.append(_Kept(kind="sqlite", path=path))
        else:
            raise NotFrozen(f"a {state.kind} state cannot be put back")
    if not kept:
        raise NotFrozen("the server has no state to put back")
    return kept


def settle(folder: Path, token: str, until: float) -> str:
    """Right after the real call. Why it could not be recorded, and then nothing can be put back; "" where it was."""
    try:
        record = _record(folder, token)
        before = _read(record / "before.json")
        after = tuple(state.model_copy(update={"manifest": _now(state, state.path, until)}) for state in before.states)
        _write(record / "after.json", _Record(states=after).model_dump_json())
    except NotFrozen as why:
        return str(why)
    except OSError as error:
        return f"the state could not be recorded: {error.strerror or error}"
    return ""


def plan(folder: Path, token: str, until: float) -> Plan:
    try:
        return Plan(tuple(write for _, writes in _planned(_record(folder, token), until) for write in writes))
    except NotFrozen as why:
        return Plan(refused=str(why), done=isinstance(why, _Done))


def revert(folder: Path, token: str, until: float) -> Plan:
    """Puts the state back. Cut off at any point, or refused in its midst, it can be called again."""
    try:
        record = _record(folder, token)
        with _alone(record):
            planned = _planned(record, until)
            _write(record / "began", "")
            for number, (state, writes) in enumerate(planned):
                clone = record / "clones" / str(number)
                if state.kind == "directory":
                    put_back(state.path, state.manifest, clone, [_below(write, state) for write in writes], temporary(token), until)
                elif writes:
                    put_back_database(state.path, state.manifest, clone, until)
            _write(record / "done", "")
            shutil.rmtree(record / "clones", ignore_errors=True)
            return Plan(tuple(write for _, writes in planned for write in writes), done=True)
    except NotFrozen as why:
        return Plan(refused=str(why), done=isinstance(why, _Done))
    except (OSError, sqlite3.Error) as error:
        return Plan(refused=f"the state could not be put back: {error}")


def forget(folder: Path, token: str) -> None:
    """It will not be put back: the clone goes."""
    if _TOKEN.fullmatch(token):
        shutil.rmtree(folder / "reverts" / token, ignore_errors=True)


def _planned(record: Path, until: float) -> list[tuple[_Kept, list[Write]]]:
    """Raises NotFrozen where it may not be put back."""
    before = _read(record / "before.json")
    if (record / "done").exists():
        raise _Done("it has been put back already")
    if not (record / "after.json").exists():
        raise NotFrozen("what the call left was not recorded: nothing can be told from what came later")
    after, began = _read(record / "after.json"), (record / "began").exists()
    found = []
    for old, new in zip(before.states, after.states, strict=True):
        now = {path: what for path, what in _now(old, old.path, until).items() if not (began and posixpath.basename(path) == temporary(record.name))}
        for path in sorted(now.keys() | new.manifest.keys() | old.manifest.keys()):
            if now.get(path) != new.manifest.get(path) and not (began and _under_way(path, now, old.manifest, new.manifest)):
                raise NotFrozen(f"something else has written to {posixpath.join(old.path, path).rstrip('/')} since")
        writes = manifest.changes(now, old.manifest)
        found.append((old, [Write(posixpath.join(old.path, write.path).rstrip("/"), write.change, write.mode) for write in writes]))
    return found


def _under_way(path: str, now: Manifest, old: Manifest, new: Manifest) -> bool:
    """Whether a path is as a revert that was cut off may have left it: put back, taken away to make room, or a folder that has not its mode yet."""
    present, was = now.get(path), old.get(path)
    if present == was:
        return True
    if was is None:
        return False
    if present is None:
        return stat.S_IFMT(manifest.mode(was)) != stat.S_IFMT(manifest.mode(new.get(path, "0")))
    return stat.S_ISDIR(manifest.mode(was)) and stat.S_ISDIR(manifest.mode(present))


def _below(write: Write, state: _Kept) -> Write:
    path = posixpath.relpath(write.path or "/", state.path)
    return Write("" if path == "." else path, write.change, write.mode)


@contextmanager
def _alone(record: Path) -> Iterator[None]:
    descriptor = os.open(record, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise NotFrozen("it is being put back") from None
    finally:
        os.close(descriptor)


def _record(folder: Path, token: str) -> Path:
    record = folder / "reverts" / token
    if not _TOKEN.fullmatch(token) or not (record / "before.json").is_file():
        raise NotFrozen("there is no such clone")
    return record


def _read(path: Path) -> _Record:
    try:
        return _Record.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError):
        raise NotFrozen("the clone's record cannot be read") from None


def _write(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
