"""Making a state what its clone is, one change after the other, each such that a revert cut off there can go on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from enforcer.sandbox import manifest
from enforcer.sandbox.manifest import Manifest
from enforcer.sandbox.state import directory, sqlite
from enforcer.sandbox.tree import open_file, open_root
from escrow.sandbox.effects import Change, Write


def temporary(token: str) -> str:
    """The name of the file that is written beside the one whose place it takes."""
    return f".holdfast-{token}"


def put_back_database(path: str, was: Manifest, clone: Path, until: float) -> None:
    """In one transaction of SQLite's own. Raises sqlite3.Error, OSError and NotFrozen."""
    sqlite.pour(clone, path, until)
    _, user, group, *_rest = was[""].split(" ")
    folder = open_root(os.path.dirname(path))
    try:
        file = open_file(os.path.basename(path), folder)
        try:
            os.fchown(file, int(user), int(group))
            os.fchmod(file, stat.S_IMODE(manifest.mode(was[""])))
        finally:
            os.close(file)
    finally:
        os.close(folder)


def put_back(path: str, was: Manifest, clone: Path, writes: list[Write], beside: str, until: float) -> None:
    """writes: paths below `path`, parents first. beside: `temporary`. Raises OSError and NotFrozen.

    Takes away from the deepest up, makes from the top down, and gives folders their rights last. By descriptors, through no link.
    """
    live, kept = open_root(path), open_root(str(clone))
    try:
        for write in reversed(writes):
            if write.change is Change.DELETED:
                with _parent(live, write.path) as (folder, name):
                    _remove(folder, name)
        for write in writes:
            if write.change is not Change.DELETED and write.path:
                _make(live, kept, write, beside, until)
        for write in reversed(writes):
            if write.mode is not None and stat.S_ISDIR(write.mode):
                _, user, group, *_rest = was[write.path].split(" ")
                folder = directory.descend(live, write.path)
                try:
                    os.fchown(folder, int(user), int(group))
                    os.fchmod(folder, stat.S_IMODE(write.mode))
                    os.fsync(folder)
                finally:
                    os.close(folder)
    finally:
        os.close(live)
        os.close(kept)


def _make(live: int, kept: int, write: Write, beside: str, until: float) -> None:
    assert write.mode is not None
    with _parent(live, write.path) as (folder, name):
        try:
            present: int | None = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            present = None
        if present is not None and stat.S_ISDIR(present) != stat.S_ISDIR(write.mode):
            _remove(folder, name)
            present = None
        if stat.S_ISDIR(write.mode):
            if present is None:
                os.mkdir(name, 0o700, dir_fd=folder)
            return
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=folder)
        if stat.S_ISLNK(write.mode):
            with _parent(kept, write.path) as (source, original):
                status = os.stat(original, dir_fd=source, follow_symlinks=False)
                os.symlink(os.readlink(original, dir_fd=source), beside, dir_fd=folder)
                os.chown(beside, status.st_uid, status.st_gid, dir_fd=folder, follow_symlinks=False)
        else:
            directory.copy_file(kept, write.path, folder, beside, until)
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def _remove(folder: int, name: str) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        os.rmdir(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)


@contextmanager
def _parent(root: int, path: str) -> Iterator[tuple[int, str]]:
    folder, _, name = path.rpartition("/")
    descriptor = directory.descend(root, folder)
    try:
        yield descriptor, name
    finally:
        os.close(descriptor)
