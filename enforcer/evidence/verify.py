"""The checker: takes the log's files and a public key, trusts nothing else, and says whether the log is sound and where it is not.

It streams: memory does not grow with the log. Every byte of every file is looked at: headers and checkpoints must be those that the entries
lead to, every entry must frame and encode to the same bytes again, and every checkpoint's root must be the tree's at its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from enforcer.evidence import files, keys
from enforcer.evidence.files import Malformed, Segment, Torn
from escrow.evidence.canonical import NotCanonical, decode
from escrow.evidence.note import Signed, Verifier
from escrow.evidence.tree import Frontier


@dataclass(frozen=True, slots=True)
class Problem:
    """What is not sound. entry: the number of the first bad entry, or the first of those it is among; file: where. text: ours, nothing quoted."""

    text: str
    entry: int | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. size: whole entries read. signed: those that the last checkpoint covers, None without one.

    checkpoints: verified ones, in the log's own file; kept: verified ones from elsewhere. root: hex, of the entries read.
    torn: past what is signed a file ends within a record, as a crash leaves it.
    """

    size: int
    root: str
    signed: int | None
    checkpoints: int
    kept: int
    torn: bool
    problem: Problem | None

    @property
    def tail(self) -> int:
        """Entries past the last checkpoint."""
        return self.size - (self.signed or 0)

    def sound(self, allow_tail: bool) -> bool:
        """allow_tail: a log being written has a tail that is not signed yet."""
        return self.problem is None and self.signed is not None and (allow_tail or (self.tail == 0 and not self.torn))


def verify(folder: Path, verifier: Verifier, kept: Sequence[Signed] = (), progress: Callable[[int, int], None] = lambda done, total: None) -> Report:
    """Check a log.

    kept: checkpoints from elsewhere (a journal, another machine), which the log must still lead to.
    progress: called now and then with bytes done and to do.

    Raises OSError where a file cannot be read. What is missing or wrong is in the report.
    """
    return _Check(folder, verifier, kept, progress).run()


class _Wrong(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem


class _Check:
    def __init__(self, folder: Path, verifier: Verifier, kept: Sequence[Signed], progress: Callable[[int, int], None]) -> None:
        self.folder, self.verifier, self.progress = folder, verifier, progress
        self.kept = sorted(kept, key=lambda signed: signed.checkpoint.size)
        self.kept_at = 0
        self.tree = Frontier()
        self.signed: int | None = None
        self.checkpoints = self.sound_to = 0
        self.torn = False
        self.next: Signed | None = None

    def run(self) -> Report:
        problem = None
        try:
            self._kept_are_signed()
            self._walk()
        except _Wrong as wrong:
            problem = wrong.problem
        return Report(self.tree.size, self.tree.root().hex(), self.signed, self.checkpoints, self.kept_at, self.torn, problem)

    def _walk(self) -> None:
        if not self.folder.is_dir():
            raise _Wrong(Problem("there is no log here"))
        notes_file = self.folder / files.CHECKPOINTS
        if not notes_file.is_file():
            raise _Wrong(Problem("it is missing", file=files.CHECKPOINTS))
        # Sizes first, the checkpoints' before the entries': a log that is being written only grows past what is looked at.
        notes_size = notes_file.stat().st_size
        segments, strange = files.segments(self.folder)
        if strange:
            raise _Wrong(Problem("it does not belong to the log", file=strange[0]))
        with notes_file.open("rb") as file:
            self.notes = self._checkpoints(file, notes_size)
            self.next = next(self.notes, None)
            self._compare()
            self._entries(segments)
        if self.next is not None:
            raise _Wrong(Problem(f"the log ends here, and a checkpoint signed {self.next.checkpoint.size} entries: some were removed", entry=self.tree.size))
        if self.kept_at < len(self.kept):
            size = self.kept[-1].checkpoint.size
            raise _Wrong(Problem(f"the log ends here, and a checkpoint kept elsewhere signed {size} entries: it was rolled back", entry=self.tree.size))
        if self.signed is None:
            raise _Wrong(Problem("there is no checkpoint: nothing is signed", file=files.CHECKPOINTS))

    def _entries(self, segments: list[Segment]) -> None:
        total, done = sum(segment.size for segment in segments), 0
        if not segments or segments[0].first != 0:
            raise _Wrong(Problem("the log's beginning is missing", entry=0))
        for segment in segments:
            name = segment.path.name
            if self.torn:
                raise _Wrong(Problem("the segment before it ends within a record", entry=self.tree.size, file=name))
            with segment.path.open("rb") as file:
                rows = files.lines(file, segment.size)
                if segment.first != self.tree.size:
                    raise _Wrong(Problem(f"the segment begins with entry {segment.first}: those from here on are missing", entry=self.tree.size, file=name))
                head = next(rows, b"")
                if head != files.header(self.tree):
                    if segment is segments[-1] and not head.endswith(b"\n") and segment.first > 0:
                        self.torn = True
                        continue
                    raise _Wrong(Problem("the segment's header is not what the entries before it lead to", entry=self.tree.size, file=name))
                done += len(head)
                for line in rows:
                    self._entry(line, name)
                    done += len(line)
                    if self.tree.size % 4096 == 0:
                        self.progress(done, total)

    def _entry(self, line: bytes, name: str) -> None:
        at = self.tree.size
        try:
            leaf, entry = files.parse_frame(line)
            if decode(entry)["seq"] != at:
                raise Malformed("another entry stands in its place")
        except Torn as torn:
            if self.next is not None:
                raise _Wrong(Problem(f"{torn}, and a checkpoint signed it", entry=at, file=name)) from None
            self.torn = True
            return
        except (Malformed, NotCanonical) as wrong:
            raise _Wrong(Problem(str(wrong), entry=at, file=name)) from None
        self.tree.append(leaf)
        self._compare()

    def _compare(self) -> None:
        """Hold the tree against every checkpoint made at its present size."""
        size = self.tree.size
        if self.next is not None and self.next.checkpoint.size == size:
            if self.next.checkpoint.root != self.tree.root():
                which = f"of entries {self.sound_to} to {size - 1} one is not what was signed" if size else "the checkpoint is not of this log"
                raise _Wrong(Problem(which, entry=self.sound_to))
            self.signed, self.sound_to = size, size
            self.checkpoints += 1
            self.next = next(self.notes, None)
        while self.kept_at < len(self.kept) and self.kept[self.kept_at].checkpoint.size == size:
            if self.kept[self.kept_at].checkpoint.root != self.tree.root():
                raise _Wrong(Problem(f"a checkpoint kept elsewhere signed other {size} entries: the log was rewritten"))
            self.kept_at += 1

    def _checkpoints(self, file: BinaryIO, size: int) -> Iterator[Signed]:
        before = -1
        try:
            for signed in files.notes(file, size):
                if not keys.holds(signed, self.verifier):
                    raise _Wrong(Problem(f"checkpoint {self.checkpoints} is not signed by this key", file=files.CHECKPOINTS))
                if signed.checkpoint.size <= before:
                    raise _Wrong(Problem(f"checkpoint {self.checkpoints} does not go beyond the one before it", file=files.CHECKPOINTS))
                before = signed.checkpoint.size
                yield signed
        except Torn:
            self.torn = True
        except Malformed as wrong:
            raise _Wrong(Problem(f"checkpoint {self.checkpoints}: {wrong}", file=files.CHECKPOINTS)) from None

    def _kept_are_signed(self) -> None:
        for signed in self.kept:
            if not keys.holds(signed, self.verifier):
                raise _Wrong(Problem(f"a checkpoint kept elsewhere, of {signed.checkpoint.size} entries, is not signed by this key"))
