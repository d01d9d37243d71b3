"""The writer: records entries, syncs them in groups from a thread of its own, signs checkpoints.

Order, so that no crash can make the log contradict itself: an entry is written before it counts; entries are synced before a checkpoint over
them is signed; a segment is synced before anything in the next one counts as synced.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NewType

from enforcer.evidence import files, keys, recovery
from enforcer.evidence.errors import EvidenceError
from escrow.evidence.canonical import encode
from escrow.evidence.entry import Event, Lost
from escrow.evidence.note import Signed
from escrow.evidence.tree import Frontier, leaf_hash

Position = NewType("Position", int)
"""How many entries the log had once this one was in it."""

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class EvidenceLog:
    """See the package. `open` makes one; `record` and `synced` are the daemon's."""

    def __init__(
        self,
        folder: Path,
        signer: keys.Signer,
        secret: bytes,
        found: recovery.Recovered,
        publish: Callable[[str], None],
        segment_bytes: int,
        checkpoint_s: float,
        sync_s: float,
    ) -> None:
        self._folder, self._signer, self._secret, self._publish = folder, signer, secret, publish
        self._segment_bytes, self._checkpoint_s, self._sync_s = segment_bytes, checkpoint_s, sync_s
        self._directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._file = os.open(found.segment, _APPEND)
        self._notes = os.open(folder / files.CHECKPOINTS, _APPEND)
        self._tree, self._bytes, self._note_bytes = found.tree, found.segment_bytes, found.checkpoint_bytes
        self._first, self._last, self._synced = found.first, found.last, 0
        self._retired: list[int] = []  # full segments, not yet synced
        self._torn = False  # part of a record stands behind `_bytes` and could not be cut off yet
        self._held = threading.RLock()
        self._lock = threading.Condition(self._held)  # over the same lock: `record`, once for every message, takes that without its wrapper
        self._dirty = self._urgent = self._closing = self._ended = False
        self._waiting: list[tuple[Position, asyncio.Future[None]]] = []
        self._unwritten: str | None = None
        self._unsigned: str | None = None
        self._unpublished: str | None = None
        self._failed: str | None = None  # for good: what was recorded may not be on the disk
        self._second_ns, self._prefix = 0, ""
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)

    @classmethod
    def open(
        cls, state_dir: Path, server: str, publish: Callable[[str], None], *, segment_bytes: int = 64 << 20, checkpoint_s: float = 10.0, sync_s: float = 0.05
    ) -> EvidenceLog:
        """Take up the log in this state directory, or begin one named after `server`. Raises EvidenceError. See the package."""
        folder = files.folder_of(state_dir)
        try:
            signer, new = keys.load(state_dir), recovery.is_new(folder)
            if signer is None and not new:
                raise EvidenceError(f"{keys.key_file(state_dir)} is missing, and there is a log: restore it, or move the folder {folder} elsewhere")
            if signer is not None and new and not (folder / files.segment_name(0)).exists():
                # Signing a second, shorter log with the same key would be what the log is there to show.
                raise EvidenceError(f"{folder} is missing, and its key is there: restore it, or move {keys.key_file(state_dir)} elsewhere")
            if new:
                recovery.begin(folder)
            signer = signer or keys.create(state_dir, server)
            found = recovery.recover(folder, signer.verifier)
            log = cls(folder, signer, keys.load_secret(state_dir), found, publish, segment_bytes, checkpoint_s, sync_s)
        except OSError as error:
            raise EvidenceError(f"the evidence log cannot be opened: {error.strerror}") from None
        if found.torn_bytes:
            log.record(Lost("evidence", found.torn_bytes, "a crash tore the log's end: what was no whole record was dropped", unit="bytes"))
        log._sync_and_sign(log._tree.copy(), sign=True)
        if log._failed or log._unsigned:
            raise EvidenceError(log.problem or "")
        log._thread.start()
        return log

    @property
    def size(self) -> int:
        return self._tree.size

    @property
    def checkpoint(self) -> str:
        return "" if self._last is None else str(self._last)

    @property
    def problem(self) -> str | None:
        """Why the log cannot be written, synced, signed or its checkpoint sent; None while it can."""
        return self._failed or self._unwritten or self._unsigned or self._unpublished

    def record(self, event: Event) -> Position:
        """Write one entry. Raises EvidenceError; then nothing of it is in the log."""
        with self._held:
            if self._failed is not None or self._closing:
                raise EvidenceError(self._failed or "the evidence log is closed")
            seq = self._tree.size
            entry = encode(event, seq, self._now(), self._secret)
            leaf = leaf_hash(entry)
            line = files.frame(leaf, entry)
            try:
                if self._torn:
                    self._cut()
                if self._bytes + len(line) > self._segment_bytes and seq > self._first:
                    self._next_segment()
                self._write(line)
            except OSError as error:
                self._unwritten = f"the evidence log cannot be written: {error.strerror}"
                raise EvidenceError(self._unwritten) from None
            self._unwritten = None
            self._tree.append(leaf)
            if not self._dirty:
                self._dirty = True
                self._lock.notify()
            return Position(seq + 1)

    async def synced(self, position: Position) -> None:
        """Return once everything up to the position is on the disk. Raises EvidenceError."""
        with self._lock:
            if position <= self._synced:
                return
            if self._failed is not None or self._ended:
                raise EvidenceError(self._failed or "the evidence log is closed")
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((position, future))
            if not self._urgent:
                self._dirty = self._urgent = True
                self._lock.notify()
        await future

    def close(self) -> None:
        """Sync, sign, stop. Raises EvidenceError where the tail could not be synced or signed."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        self._thread.join()
        for descriptor in (self._file, self._notes, self._directory, *self._retired):
            os.close(descriptor)
        if self._failed or self._unsigned:
            raise EvidenceError(self._failed or self._unsigned or "")

    # --- writing, under the lock ---

    def _now(self) -> str:
        """RFC 3339, microseconds, UTC. The clock may jump: an entry's place is its number, not its time."""
        nanoseconds = time.time_ns() - self._second_ns
        if not 0 <= nanoseconds < 10**9:
            second, nanoseconds = divmod(time.time_ns(), 10**9)
            self._second_ns, self._prefix = second * 10**9, time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return f"{self._prefix}{nanoseconds // 1000:06d}Z"

    def _write(self, line: bytes) -> None:
        """The whole line, or nothing of it."""
        try:
            written = os.write(self._file, line)
        except OSError:
            self._torn = True  # nothing should have been written; cutting makes sure
            raise
        if written != len(line):
            self._torn = True
            self._cut()
            raise OSError(errno.ENOSPC, "No space left on device")  # a short write to a regular file: the next one would say so
        self._bytes += written

    def _cut(self) -> None:
        os.ftruncate(self._file, self._bytes)
        self._torn = False

    def _next_segment(self) -> None:
        path = self._folder / files.segment_name(self._tree.size)
        line = files.header(self._tree)
        file = os.open(path, _APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            if os.write(file, line) != len(line):
                raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            os.close(file)
            path.unlink()
            raise
        self._retired.append(self._file)
        self._file, self._bytes, self._first = file, len(line), self._tree.size

    # --- the thread ---

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # a fault of ours: nobody may wait for a thread that is gone
            self._failed = self._failed or f"the evidence log failed ({type(error).__name__}); it is closed until the next start"
        with self._lock:
            self._ended = True
            self._answer(self._waiting)

    def _serve(self) -> None:
        due = time.monotonic() + self._checkpoint_s
        while self._failed is None:
            with self._lock:
                while not (self._dirty or self._closing or (due <= time.monotonic() and self._tree.size > self._signed)):
                    self._lock.wait(max(0.0, due - time.monotonic()) if self._tree.size > self._signed else None)
                if self._dirty and not self._urgent and not self._closing:
                    self._lock.wait_for(lambda: self._urgent or self._closing, self._sync_s)
                self._dirty = self._urgent = False
                tree, closing = self._tree.copy(), self._closing
            sign = closing or due <= time.monotonic()
            self._sync_and_sign(tree, sign)
            if sign:
                due = time.monotonic() + self._checkpoint_s
            if closing:
                return

    @property
    def _signed(self) -> int:
        return 0 if self._last is None else self._last.checkpoint.size

    def _sync_and_sign(self, tree: Frontier, sign: bool) -> None:
        try:
            self._sync()
        except OSError as error:
            # The kernel may have dropped what it could not write, and says so once: nothing later can be relied on.
            self._failed = f"the evidence log could not be synced: {error.strerror}; it is closed until the next start"
            return
        with self._lock:
            self._synced = tree.size
            self._answer([one for one in self._waiting if one[0] <= tree.size])
            self._waiting = [one for one in self._waiting if one[0] > tree.size]
        if sign and (self._last is None or tree.size > self._signed):
            try:
                self._sign(self._signer.sign(tree.size, tree.root()))
            except OSError as error:
                self._unsigned = f"the evidence log's checkpoint cannot be written: {error.strerror}"
                return
            self._unsigned = None
            try:
                self._publish(self.checkpoint)
                self._unpublished = None
            except Exception as error:  # the caller's: the log itself is whole
                self._unpublished = f"the evidence log's checkpoint could not be sent on ({type(error).__name__})"

    def _sync(self) -> None:
        with self._lock:
            retired, file = list(self._retired), self._file
        for full in retired:
            _to_disk(full)
        if retired or self._synced == 0:
            os.fsync(self._directory)
        _to_disk(file)
        for full in retired:
            self._retired.remove(full)
            os.close(full)

    def _sign(self, signed: Signed) -> None:
        data = str(signed).encode()
        os.ftruncate(self._notes, self._note_bytes)  # what an earlier attempt may have left
        if os.write(self._notes, data) != len(data):
            os.ftruncate(self._notes, self._note_bytes)
            raise OSError(errno.ENOSPC, "No space left on device")
        _to_disk(self._notes)
        self._note_bytes += len(data)
        self._last = signed

    def _answer(self, waiting: list[tuple[Position, asyncio.Future[None]]]) -> None:
        """Wake who waits, each in its own loop."""
        failed = self._failed
        for loop in {future.get_loop() for _, future in waiting}:
            theirs = [future for _, future in waiting if future.get_loop() is loop]
            with suppress(RuntimeError):  # that loop is closed: nobody waits there
                loop.call_soon_threadsafe(_wake, theirs, failed)


def _to_disk(descriptor: int) -> None:
    if sys.platform == "darwin":  # no fdatasync, and fsync leaves it in the drive's cache
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def _wake(futures: list[asyncio.Future[None]], failed: str | None) -> None:
    for future in futures:
        if future.done():
            continue
        if failed is None:
            future.set_result(None)
        else:
            future.set_exception(EvidenceError(failed))
