"""Walking a directory tree that others write in: by descriptors, never through a symbolic link, bounded by count, depth and time."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DEPTH = 128
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Unfinished(Exception):
    """The tree was not walked to its end. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """entries: how many are seen at most. until: on `time.monotonic()`, None without."""

    entries: int
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """path: below the root, without a slash in front. parent: a descriptor of its folder, open while the entry is looked at.

    status: by lstat. A folder comes before what is in it.
    """

    path: str
    name: str
    parent: int
    status: os.stat_result

    @property
    def folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def regular(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    @property
    def link(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)

    @property
    def whiteout(self) -> bool:
        """overlayfs: a character device 0:0 says that the file of the lower layer is gone."""
        return stat.S_ISCHR(self.status.st_mode) and self.status.st_rdev == 0


def open_root(path: str) -> int:
    """Raises OSError; of a symbolic link too."""
    return os.open(path, _FOLDER)


def open_folder(name: str, parent: int) -> int:
    return os.open(name, _FOLDER, dir_fd=parent)


def open_file(name: str, parent: int) -> int:
    """To read. O_NONBLOCK: a FIFO that has taken a file's place must not keep us."""
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent)


def walk(root: int, bounds: Bounds) -> Iterator[Entry]:
    """Every entry below, by name within its folder. Raises OSError, and Unfinished at a bound."""
    seen = 0

    def below(parent: int, prefix: str, depth: int) -> Iterator[Entry]:
        nonlocal seen
        if depth > MAX_DEPTH:
            raise Unfinished(f"folders deeper than {MAX_DEPTH}")
        for name in sorted(os.listdir(parent)):
            seen += 1
            if seen > bounds.entries:
                raise Unfinished(f"more than {bounds.entries} files")
            if bounds.until is not None and time.monotonic() > bounds.until:
                raise Unfinished("not within its time")
            entry = Entry(prefix + name, name, parent, os.stat(name, dir_fd=parent, follow_symlinks=False))
            yield entry
            if entry.folder:
                child = open_folder(name, parent)
                try:
                    yield from below(child, f"{prefix}{name}/", depth + 1)
                finally:
                    os.close(child)

    yield from below(root, "", 0)
