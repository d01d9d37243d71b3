"""What a run wrote: an overlayfs's upper directory against the lower one (kernel: Documentation/filesystems/overlayfs.rst).

The upper directory is mounted with `redirect_dir=off,metacopy=off,index=off`: what is found there of these makes the list incomplete. A file that
was copied up and is as it was, is no write. The run's names are bytes that it chose: those that are not UTF-8 make the list incomplete.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from enforcer.sandbox.tree import Bounds, Entry, Unfinished, open_file, open_folder, open_root, walk
from escrow.sandbox.effects import Change, Write

MAX_ENTRIES = 4096
MAX_COMPARED = 64 << 20
"""Bytes of one file that are compared; a larger one that was copied up counts as changed."""

OPTIONS = "redirect_dir=off,metacopy=off,index=off,xino=off"
"""For the mount."""

_OPAQUE = "trusted.overlay.opaque"
_UNKNOWN = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
_PART = 1 << 20


@dataclass(frozen=True, slots=True)
class Difference:
    """writes: paths as the twin sees them. incomplete: why these may not be all."""

    writes: tuple[Write, ...]
    incomplete: tuple[str, ...] = ()


def difference(upper: str, lower: str, at: str, until: float | None = None) -> Difference:
    """at: where the twin sees the overlay. until: on `time.monotonic()`. Raises nothing: what cannot be read is incomplete."""
    writes: list[Write] = []
    doubts: dict[str, None] = {}
    try:
        above = open_root(upper)
        try:
            below = open_root(lower)
            try:
                for write in _compared(above, below, Bounds(MAX_ENTRIES, until), doubts):
                    if len(writes) >= MAX_ENTRIES:
                        raise Unfinished(f"more than {MAX_ENTRIES} files")
                    writes.append(Write(f"{at.rstrip('/')}/{write.path}".rstrip("/") or "/", write.change, write.mode))
            finally:
                os.close(below)
        finally:
            os.close(above)
    except Unfinished as why:
        doubts[f"what was written is not known whole: {why}"] = None
    except OSError as error:
        doubts[f"what was written cannot be read: {error.strerror or error}"] = None
    return Difference(tuple(writes), tuple(doubts))


def _compared(above: int, below: int, bounds: Bounds, doubts: dict[str, None]) -> Iterator[Write]:
    if _has(above, _OPAQUE):
        doubts["the overlay's root is opaque"] = None
    if (new := os.fstat(above)).st_mode != (old := os.fstat(below)).st_mode or _owner(new) != _owner(old):
        yield Write("", Change.CHANGED, new.st_mode)
    for entry in walk(above, bounds):
        try:
            entry.path.encode()
        except UnicodeEncodeError:
            doubts["a written file's name is not UTF-8"] = None
            continue
        with _Lower(below, entry.path) as old_entry:
            yield from _one(entry, old_entry, bounds, doubts)


class _Lower:
    """The lower layer's entry of the same path, through its folders' descriptors; None where there is none."""

    def __init__(self, root: int, path: str) -> None:
        self._root, self._path = root, path
        self._parent: int | None = None

    def __enter__(self) -> Entry | None:
        parts = self._path.split("/")
        self._parent = os.dup(self._root)
        try:
            for part in parts[:-1]:
                child = open_folder(part, self._parent)
                os.close(self._parent)
                self._parent = child
            return Entry(self._path, parts[-1], self._parent, os.stat(parts[-1], dir_fd=self._parent, follow_symlinks=False))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise

    def __exit__(self, *_: object) -> None:
        if self._parent is not None:
            os.close(self._parent)


def _one(new: Entry, old: Entry | None, bounds: Bounds, doubts: dict[str, None]) -> Iterator[Write]:
    if new.whiteout:
        if old is not None:
            yield from _gone(old, bounds)
        return
    opaque = False
    if new.folder or new.regular:
        descriptor = open_folder(new.name, new.parent) if new.folder else open_file(new.name, new.parent)
        try:
            opaque = new.folder and _has(descriptor, _OPAQUE)
            if any(_has(descriptor, name) for name in _UNKNOWN):
                doubts["the overlay redirects a file or holds its metadata alone"] = None
        finally:
            os.close(descriptor)
    if old is None:
        yield Write(new.path, Change.CREATED, new.status.st_mode)
        return
    if opaque or (old.folder and not new.folder):
        yield from (write for write in _gone(old, bounds) if write.path != new.path)
    if opaque or not _same(new, old):
        yield Write(new.path, Change.CHANGED, new.status.st_mode)


def _gone(old: Entry, bounds: Bounds) -> Iterator[Write]:
    """It, and all that was in it."""
    yield Write(old.path, Change.DELETED)
    if old.folder:
        descriptor = open_folder(old.name, old.parent)
        try:
            for entry in walk(descriptor, bounds):
                yield Write(f"{old.path}/{entry.path}", Change.DELETED)
        finally:
            os.close(descriptor)


def _same(new: Entry, old: Entry) -> bool:
    a, b = new.status, old.status
    if a.st_mode != b.st_mode or _owner(a) != _owner(b) or _attributes(new) != _attributes(old):
        return False
    if new.link:
        return os.readlink(new.name, dir_fd=new.parent) == os.readlink(old.name, dir_fd=old.parent)
    if stat.S_ISCHR(a.st_mode) or stat.S_ISBLK(a.st_mode):
        return a.st_rdev == b.st_rdev
    return not new.regular or (a.st_size == b.st_size <= MAX_COMPARED and _same_bytes(new, old))


def _same_bytes(new: Entry, old: Entry) -> bool:
    with open(open_file(new.name, new.parent), "rb") as one, open(open_file(old.name, old.parent), "rb") as two:
        while True:
            a, b = one.read(_PART), two.read(_PART)
            if a != b:
                return False
            if not a:
                return True


def _owner(status: os.stat_result) -> tuple[int, int]:
    return status.st_uid, status.st_gid


def _attributes(entry: Entry) -> dict[str, bytes]:
    """Extended attributes, but the overlay's own: ACLs and capabilities are the file's rights."""
    if not (entry.folder or entry.regular):
        return {}
    descriptor = open_folder(entry.name, entry.parent) if entry.folder else open_file(entry.name, entry.parent)
    try:
        return {name: os.getxattr(descriptor, name) for name in os.listxattr(descriptor) if not name.startswith("trusted.overlay.")}
    finally:
        os.close(descriptor)


def _has(descriptor: int, name: str) -> bool:
    try:
        os.getxattr(descriptor, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise
    return True
