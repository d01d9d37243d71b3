"""What a state is, as digests: to tell whether anything has written to it since, and what differs."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from enforcer.sandbox.state import sqlite
from enforcer.sandbox.state.frozen import NotFrozen, in_time
from enforcer.sandbox.tree import Bounds, Entry, Unfinished, open_file, open_root, walk
from escrow.sandbox.effects import Change, Write

Manifest = dict[str, str]
"""Path below the state → mode (octal), owner, group and digest of what is there. "" is the directory itself, or the database."""

MAX_ENTRIES = 100_000
_PART = 1 << 20
_COUNTERS = ((18, 20), (24, 28), (40, 44), (92, 100))
"""Bytes of a SQLite file's header that differ between a database and its copy by the backup API: versions of the format's journal, change counter,
schema cookie, version numbers (sqlite.org/fileformat2.html, 1.3)."""


def of_directory(path: str, skip: frozenset[str], until: float) -> Manifest:
    """skip: paths that are another state's. Sockets, FIFOs and devices are not part of it. Raises NotFrozen."""
    try:
        root = open_root(path)
        try:
            status = os.fstat(root)
            found = {"": f"{status.st_mode:o} {status.st_uid} {status.st_gid} "}
            for entry in walk(root, Bounds(MAX_ENTRIES, until)):
                if entry.path not in skip and (entry.folder or entry.link or entry.regular):
                    found[entry.path] = f"{entry.status.st_mode:o} {entry.status.st_uid} {entry.status.st_gid} {_digest(entry, until)}"
            return found
        finally:
            os.close(root)
    except Unfinished as why:
        raise NotFrozen(f"the directory could not be looked at: {why}") from None
    except OSError as error:
        raise NotFrozen(f"the directory could not be looked at: {error.strerror or error}") from None


def _digest(entry: Entry, until: float) -> str:
    if entry.folder:
        return ""
    if entry.link:
        return hashlib.sha256(os.fsencode(os.readlink(entry.name, dir_fd=entry.parent))).hexdigest()
    with open(open_file(entry.name, entry.parent), "rb") as file:
        sum_ = hashlib.sha256()
        while part := file.read(_PART):
            in_time(until)
            sum_.update(part)
        return sum_.hexdigest()


def of_sqlite(path: str, until: float) -> Manifest:
    """By its pages, read through the backup API, so that what stands in the write-ahead log counts. Raises NotFrozen."""
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        whole = Path(folder) / "copy"
        sqlite.copy(path, whole, until)
        status = whole.stat()
        with whole.open("rb") as file:
            head = bytearray(file.read(100))
            for start, end in _COUNTERS:
                head[start:end] = bytes(end - start)
            sum_ = hashlib.sha256(head)
            while part := file.read(_PART):
                in_time(until)
                sum_.update(part)
    return {"": f"{status.st_mode:o} {status.st_uid} {status.st_gid} {sum_.hexdigest()}"}


def mode(described: str) -> int:
    return int(described.split(" ")[0], 8)


def changes(old: Manifest, new: Manifest) -> list[Write]:
    """What makes `new` of `old`."""
    found = []
    for path in sorted(old.keys() | new.keys()):
        if (was := old.get(path)) != (becomes := new.get(path)):
            if becomes is None:
                found.append(Write(path, Change.DELETED))
            else:
                found.append(Write(path, Change.CREATED if was is None else Change.CHANGED, mode(becomes)))
    return found
