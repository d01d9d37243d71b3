"""Going through a log's entries without checking the log: what `audit tail` and `audit export` show, and what proofs are made from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from enforcer.evidence import files
from enforcer.evidence.errors import EvidenceError
from enforcer.evidence.files import Malformed
from escrow.evidence.canonical import NotCanonical, decode
from escrow.evidence.note import Signed


def entries(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    """Every entry in order, as leaf hash and canonical JSON; stops before a torn record at the log's end. Raises EvidenceError, OSError."""
    at = 0
    for segment in _segments(folder):
        with segment.path.open("rb") as file:
            for line in islice(files.lines(file, segment.size), 1, None):
                try:
                    yield files.parse_frame(line)
                except files.Torn:
                    return
                except Malformed as wrong:
                    raise EvidenceError(f"entry {at}: {wrong}") from None
                at += 1


def last(folder: Path, count: int) -> list[dict[str, Any] | None]:
    """The last entries, oldest first; None in the place of one that cannot be read. Raises EvidenceError, OSError."""
    found: list[bytes] = []
    for segment in reversed(_segments(folder)):
        with segment.path.open("rb") as file:
            found = [*deque(islice(files.lines(file, segment.size), 1, None), maxlen=count - len(found)), *found]
        if len(found) >= count:
            break
    return [_entry(line) for line in found]


def one(folder: Path, index: int) -> dict[str, Any]:
    """One entry, by its number. Raises EvidenceError where there is none or it cannot be read, OSError."""
    for segment in reversed(_segments(folder)):
        if segment.first <= index:
            with segment.path.open("rb") as file:
                line = next(islice(files.lines(file, segment.size), 1 + index - segment.first, None), None)
            if line is None:
                break
            entry = _entry(line)
            if entry is None or entry["seq"] != index:
                raise EvidenceError(f"entry {index} cannot be read; see `holdfast audit verify`")
            return entry
    raise EvidenceError(f"the log has no entry {index}")


def last_checkpoint(folder: Path) -> Signed | None:
    """The last whole checkpoint in the log's own file, its signature not yet checked. Raises EvidenceError, OSError."""
    path, found = folder / files.CHECKPOINTS, None
    try:
        with path.open("rb") as file:
            for signed in files.notes(file, path.stat().st_size):
                found = signed
    except FileNotFoundError:
        raise EvidenceError(f"there is no evidence log in {folder}") from None
    except files.Torn:
        pass
    except Malformed as wrong:
        raise EvidenceError(f"the log's checkpoints are damaged: {wrong}") from None
    return found


def _segments(folder: Path) -> list[files.Segment]:
    try:
        return files.segments(folder)[0]
    except FileNotFoundError:
        raise EvidenceError(f"there is no evidence log in {folder}") from None


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        return decode(files.parse_frame(line)[1])
    except (Malformed, NotCanonical):
        return None
