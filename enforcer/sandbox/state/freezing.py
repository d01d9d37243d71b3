"""All of a server's state, frozen into one folder, and removed from there."""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.sandbox.state import directory, redis, sqlite
from enforcer.sandbox.state.frozen import Frozen, Mount, NotFrozen, in_time
from escrow.sandbox.settings import Directory, Postgres, Redis, Sqlite, State

_BESIDE = ("-wal", "-shm", "-journal")
"""What stands beside a SQLite database while it is open. A copy by the backup API needs none of them."""


@dataclass(slots=True)
class _Work:
    folder: Path
    until: float
    most: int
    mounts: list[Mount] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)

    def take(self, state: State, number: int) -> None:
        in_time(self.until)
        lower = self.folder / str(number)
        match state:
            case Directory():
                at = posixpath.normpath(state.at or state.path)
                self.left_out += (posixpath.join(at, path) for path in directory.copy(state.path, str(lower), self.until, self.most))
                self.mounts.append(Mount(lower, at))
            case Sqlite():
                if os.stat(state.path).st_size > self.most:
                    raise NotFrozen(f"the database is larger than {self.most} bytes")
                self._sqlite(state, lower)
            case Redis():
                self.processes.append(redis.start(state, lower, self.until))
                self.mounts.append(Mount(lower / "socket", posixpath.dirname(state.socket), overlaid=False))
            case Postgres():
                raise NotFrozen("PostgreSQL databases are not copied yet")

    def _sqlite(self, state: Sqlite, lower: Path) -> None:
        """Into the frozen directory that the twin sees around it, if one is there; else it is alone in its folder, as SQLite writes beside it."""
        at = posixpath.normpath(state.at or state.path)
        for mount in self.mounts:
            if mount.overlaid and at.startswith(mount.at.rstrip("/") + "/"):
                target = mount.lower / posixpath.relpath(at, mount.at)
                if target.parent.resolve() != mount.lower.resolve() / posixpath.relpath(posixpath.dirname(at), mount.at):
                    raise NotFrozen("a symbolic link leads to the database's place")
                for path in (target, *(target.with_name(target.name + end) for end in _BESIDE)):
                    path.unlink(missing_ok=True)
                break
        else:
            lower.mkdir(0o755)
            folder = os.stat(posixpath.dirname(state.path))
            os.chown(lower, folder.st_uid, folder.st_gid)
            target = lower / posixpath.basename(at)
            self.mounts.append(Mount(lower, posixpath.dirname(at)))
        sqlite.copy(state.path, target, self.until)


def freeze(states: tuple[State, ...], folder: Path, until: float, most: int = directory.MAX_BYTES) -> Frozen:
    """Into the new folder `folder`. until: on `time.monotonic()`. most: bytes of each state.

    Raises nothing: what could not be frozen is said in `why`, and then nothing is kept.
    """
    began = time.monotonic()
    work = _Work(folder, until, most)
    why = ""
    try:
        folder.mkdir(0o700)
        for number, state in enumerate(sorted(states, key=_order)):
            work.take(state, number)
        places = [mount.at for mount in work.mounts]
        if len(set(places)) != len(places):
            raise NotFrozen("two states have one place in the twin")
        in_time(until)
    except NotFrozen as error:
        why = str(error)
    except OSError as error:
        why = f"the state could not be frozen: {error.strerror or error}"
    took = (time.monotonic() - began) * 1000
    frozen = Frozen(folder, tuple(work.mounts), took, why, tuple(work.left_out[:64]), tuple(work.processes))
    if why:
        discard(frozen)
        return Frozen(folder, took_ms=took, why=why)
    return frozen


def discard(frozen: Frozen) -> None:
    """Ends the twin's own servers and removes the copies. Once for each value that is whole."""
    for process in frozen.processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, 0)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(frozen.folder)


def _order(state: State) -> tuple[int, str]:
    """Directories first, outer before inner; then what is put into them."""
    return (0, posixpath.normpath(state.at or state.path)) if isinstance(state, Directory) else (1, "")
