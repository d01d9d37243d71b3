"""Taking up a log where it was left: the tree's right edge from the files, and what a crash tore at their end dropped.

Read is only what the last checkpoint does not cover by its segment's header. What the checkpoint covers must be there and lead to its root;
where it is not, this is no crash but damage, and nothing is written any more.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from enforcer.evidence import files, keys
from enforcer.evidence.errors import EvidenceError
from enforcer.evidence.files import Malformed, Segment
from escrow.evidence.canonical import NotCanonical, decode
from escrow.evidence.note import LINES, Signed, Verifier
from escrow.evidence.tree import Frontier

_ADVICE = "look at `holdfast audit verify`; to begin a new log, move the folders evidence and keys/evidence.* of the state directory elsewhere"


@dataclass(frozen=True, slots=True)
class Recovered:
    """tree: all whole entries. segment: the file to go on with, from entry `first` on, already cut to `segment_bytes`. last: the last checkpoint.

    checkpoint_bytes: the checkpoints file's size, already cut. torn_bytes: what a crash left that was no whole record, now gone.
    """

    tree: Frontier
    segment: Path
    first: int
    segment_bytes: int
    last: Signed | None
    checkpoint_bytes: int
    torn_bytes: int


def begin(folder: Path) -> None:
    """Make an empty log. Raises OSError."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, data in ((files.segment_name(0), files.header(Frontier())), (files.CHECKPOINTS, b"")):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_new(folder: Path) -> bool:
    """Whether there is no log, or one that was being made when its making was interrupted: no entry, no checkpoint. Raises OSError."""
    if not folder.is_dir():
        return True
    found, strange = files.segments(folder)
    checkpoints = folder / files.CHECKPOINTS
    signed = checkpoints.exists() and checkpoints.stat().st_size > 0
    return not signed and not strange and (not found or (len(found) == 1 and found[0].first == 0 and found[0].size <= len(files.header(Frontier()))))


def recover(folder: Path, verifier: Verifier) -> Recovered:
    """Read the log's end and drop what is torn. Raises EvidenceError, OSError."""
    last, checkpoint_bytes, torn = _last_checkpoint(folder / files.CHECKPOINTS, verifier)
    covered = 0 if last is None else last.checkpoint.size
    found, strange = files.segments(folder)
    if strange:
        raise EvidenceError(f"the evidence folder has {len(strange)} files that are not the log's: {_ADVICE}")
    before = [segment for segment in found if segment.first <= covered]
    if not before:
        raise EvidenceError(f"the evidence log's entries are missing: {_ADVICE}")
    if len(before) > 1 and not _begun(before[-1]):
        before.pop()
    reader = _Reader(covered, last)
    used, at = before[-1], 0
    for segment in found[found.index(used) :]:
        end = reader.read(segment)
        if end is None:  # nothing of this segment can be used
            break
        used, at = segment, end
        if reader.cut:
            break
    if reader.tree.size < covered:
        raise EvidenceError(f"the evidence log has {reader.tree.size} entries, and its last checkpoint was made over {covered}: {_ADVICE}")
    for segment in found[found.index(used) + 1 :]:
        torn += 0 if reader.header_only(segment) else segment.size
        segment.path.unlink()
    if used.size > at:
        torn += used.size - at
        _cut(used.path, at)
    return Recovered(reader.tree, used.path, used.first, at, last, checkpoint_bytes, torn)


class _Reader:
    """Walks segments from the last checkpoint's on. tree: what was read. cut: whether something was not whole."""

    def __init__(self, covered: int, last: Signed | None) -> None:
        self.covered, self.last = covered, last
        self.tree = Frontier()
        self.cut = False
        self._started = False

    def read(self, segment: Segment) -> int | None:
        """Up to where the segment is whole, in bytes; None where not even its header is."""
        with segment.path.open("rb") as file:
            rows = files.lines(file, segment.size)
            try:
                tree = files.parse_header(next(rows, b""))
                if tree.size != segment.first or (self._started and files.header(tree) != files.header(self.tree)):
                    raise Malformed("it does not begin where the one before it ends")
            except Malformed:
                if not self._started:
                    raise EvidenceError(f"the header of {segment.path.name} is damaged: {_ADVICE}") from None
                self.cut = True
                return None
            self.tree, self._started = tree, True
            self._check()
            whole = len(files.header(tree))
            for line in rows:
                try:
                    leaf, entry = files.parse_frame(line)
                    if self.tree.size >= self.covered and decode(entry)["seq"] != self.tree.size:
                        raise Malformed("it has another number")
                except (Malformed, NotCanonical):
                    if self.tree.size < self.covered:
                        raise EvidenceError(f"entry {self.tree.size} of the evidence log is damaged: {_ADVICE}") from None
                    self.cut = True
                    break
                self.tree.append(leaf)
                whole += len(line)
                self._check()
            return whole

    def header_only(self, segment: Segment) -> bool:
        """Whether a segment that is dropped held no entry yet: it was being made."""
        return segment.first == self.tree.size and segment.size <= len(files.header(self.tree))

    def _check(self) -> None:
        if self.last is not None and self.tree.size == self.covered and self.tree.root() != self.last.checkpoint.root:
            raise EvidenceError(f"the evidence log is not what its last checkpoint signed: {_ADVICE}")


def _last_checkpoint(path: Path, verifier: Verifier) -> tuple[Signed | None, int, int]:
    """The last checkpoint, the file's size without what is torn, and how much that was; the file is cut to it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        # From some note's start before the end on: a note follows a line that is a signature.
        file.seek(max(0, size - 4 * files.MAX_NOTE))
        data = file.read()
    last, rest = None, data if size == len(data) else data.partition("\n\u2014 ".encode())[2].partition(b"\n")[2]
    while (end := _note_end(rest)) is not None:
        try:
            last = Signed.parse(rest[:end].decode())
        except ValueError:
            raise EvidenceError(f"the evidence log's checkpoints are damaged: {_ADVICE}") from None
        rest = rest[end:]
    if last is None and size > len(rest):
        raise EvidenceError(f"the evidence log's checkpoints are damaged: {_ADVICE}")
    if last is not None and not keys.holds(last, verifier):
        raise EvidenceError(f"the evidence log's last checkpoint is not signed by its key: {_ADVICE}")
    if rest:
        _cut(path, size - len(rest))
    return last, size - len(rest), len(rest)


def _begun(segment: Segment) -> bool:
    """Whether a segment's making was not interrupted."""
    with segment.path.open("rb") as file:
        return next(files.lines(file, segment.size), b"").endswith(b"\n")


def _cut(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)  # truncate(2) is not among the daemon's calls, ftruncate(2) is
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _note_end(data: bytes) -> int | None:
    """Where the note at the beginning ends; None where it is not whole."""
    at = -1
    for _ in range(LINES):
        at = data.find(b"\n", at + 1)
        if at < 0:
            return None
    return at + 1
