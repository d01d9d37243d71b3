"""A SQLite database's copy, by the backup API (sqlite.org/backup.html): one consistent instant, write-ahead log included, whoever writes meanwhile."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from pathlib import Path
from urllib.parse import quote

from enforcer.sandbox.state.frozen import NotFrozen, in_time

_PAGES = 2048
"""Pages for each step, between which the clock is looked at."""


def copy(path: str, target: Path, until: float) -> None:
    """Into the new file `target`, with the original's mode and owner. until: on `time.monotonic()`. Raises NotFrozen."""
    try:
        status = _regular(path)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        pour(path, target, until)
        if (again := _regular(path)).st_ino != status.st_ino or again.st_dev != status.st_dev:
            raise NotFrozen("the database's file was replaced while it was copied")
        os.chown(target, status.st_uid, status.st_gid)
        os.chmod(target, stat.S_IMODE(status.st_mode))
    except sqlite3.Error as error:
        raise NotFrozen(f"the database could not be copied: {error}") from None
    except OSError as error:
        raise NotFrozen(f"the database could not be copied: {error.strerror or error}") from None


def pour(source: str | Path, target: str | Path, until: float) -> None:
    """All of one database into another that exists, in one transaction of its own. Raises sqlite3.Error, and NotFrozen when late."""

    def look(_status: int, _remaining: int, _total: int) -> None:
        in_time(until)

    patience = max(0.001, until - time.monotonic())
    reader = sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, timeout=patience)
    try:
        writer = sqlite3.connect(f"file:{quote(str(target))}?mode=rw", uri=True, timeout=patience, isolation_level=None)
        try:
            in_time(until)
            reader.backup(writer, pages=_PAGES, progress=look, sleep=0.005)
        finally:
            writer.close()
    finally:
        reader.close()


def _regular(path: str) -> os.stat_result:
    """Of a file that no link leads to: SQLite itself would follow one that the server has put there."""
    if os.path.realpath(path) != os.path.normpath(path):
        raise NotFrozen("a symbolic link leads to the database")
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise NotFrozen("the database is not a file")
    return status
