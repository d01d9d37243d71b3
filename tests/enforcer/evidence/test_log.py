"""The writer: what is recorded stays recorded, what cannot be is said at once, and no crash makes the log contradict itself."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from enforcer.evidence import EvidenceError, Position, keys
from enforcer.evidence import log as writer
from enforcer.evidence.files import CHECKPOINTS, folder_of
from enforcer.evidence.reading import entries
from escrow.evidence.canonical import decode
from tests.enforcer.evidence.logs import NEVER, checked, event, notes, opened, written

pytestmark = pytest.mark.anyio


def seen(state: Path) -> list[dict[str, object]]:
    return [decode(entry) for _, entry in entries(folder_of(state))]


def test_entries_have_their_numbers_and_times_in_utc(tmp_path: Path) -> None:
    log = opened(tmp_path)
    before = time.time()
    assert [log.record(event(number)) for number in range(3)] == [1, 2, 3]
    log.close()
    found = seen(tmp_path)
    assert [one["seq"] for one in found] == [0, 1, 2] and [one["why"] for one in found] == ["event 0", "event 1", "event 2"]
    stamp = str(found[0]["at"])
    assert stamp.startswith(time.strftime("%Y-%m-%dT%H:", time.gmtime(before))) and stamp.endswith("Z") and len(stamp) == 27


def test_only_its_user_can_read_the_log_and_its_keys(tmp_path: Path) -> None:
    written(tmp_path, 3, segment_bytes=500)
    for path in (*folder_of(tmp_path).iterdir(), *(tmp_path / "keys").iterdir()):
        assert path.stat().st_mode & 0o777 == 0o600, path
    for path in (folder_of(tmp_path), tmp_path / "keys"):
        assert path.stat().st_mode & 0o777 == 0o700, path
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["evidence.key", "evidence.salt"]


def test_what_was_recorded_can_be_read_before_anything_is_synced(tmp_path: Path) -> None:
    log = opened(tmp_path, sync_s=NEVER)
    log.record(event(0))
    assert len(seen(tmp_path)) == 1
    log.close()


async def test_whoever_awaits_has_it_synced_at_once(tmp_path: Path) -> None:
    log = opened(tmp_path, sync_s=NEVER)
    async with asyncio.timeout(10):
        await log.synced(log.record(event(0)))
        await log.synced(Position(1))
    log.close()


async def test_all_who_wait_together_are_served_by_few_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path, sync_s=NEVER)
    synced, real = [0], os.fdatasync

    def counted(descriptor: int) -> None:
        synced[0] += 1
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)
    async with asyncio.timeout(10):
        await asyncio.gather(*(log.synced(log.record(event(number))) for number in range(200)))
    assert 1 <= synced[0] <= 10
    log.close()


async def test_what_nobody_awaits_is_synced_within_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path, sync_s=0.05)
    done, real = threading.Event(), os.fdatasync

    def noticed(descriptor: int) -> None:
        real(descriptor)
        done.set()

    monkeypatch.setattr(os, "fdatasync", noticed)
    log.record(event(0))
    assert done.wait(5)
    log.close()


def test_a_checkpoint_is_signed_while_there_is_something_new_and_sent_on(tmp_path: Path) -> None:
    published: list[str] = []
    log = opened(tmp_path, published, checkpoint_s=0.01)
    assert [one.checkpoint.size for one in notes(tmp_path, published)] == [0]
    log.record(event(0))
    until = time.monotonic() + 10
    while len(published) < 2 and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert [one.checkpoint.size for one in notes(tmp_path, published)] == [0, 1]
    assert checked(tmp_path).sound(allow_tail=False) and log.checkpoint == published[-1]
    log.close()
    assert len(published) == 2, "nothing new, nothing signed"
    assert (folder_of(tmp_path) / CHECKPOINTS).read_text() == "".join(published)


def test_a_journal_that_cannot_be_written_does_not_stop_the_log(tmp_path: Path) -> None:
    def broken(text: str) -> None:
        raise BrokenPipeError

    log = writer.EvidenceLog.open(tmp_path, "port-1", broken)
    assert log.problem is not None and "could not be sent on" in log.problem
    log.record(event(0))
    log.close()
    assert checked(tmp_path).sound(allow_tail=False)


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.close()
    with pytest.raises(EvidenceError, match="closed"):
        log.record(event(0))


async def test_nobody_waits_for_a_closed_log(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.close()
    with pytest.raises(EvidenceError, match="closed"):
        await log.synced(Position(1))


async def test_a_failed_sync_ends_the_log_for_those_who_wait_and_those_who_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path, sync_s=NEVER)

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", failing)
    async with asyncio.timeout(10):
        with pytest.raises(EvidenceError, match=r"could not be synced: Input/output error"):
            await log.synced(log.record(event(0)))
    with pytest.raises(EvidenceError, match="closed until the next start"):
        log.record(event(1))
    with pytest.raises(EvidenceError, match="closed until the next start"):
        await log.synced(Position(1))
    assert log.problem is not None
    with pytest.raises(EvidenceError):
        log.close()


def test_a_short_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    log.record(event(0))
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:10]))
    with pytest.raises(EvidenceError, match="No space left"):
        log.record(event(1))
    assert log.size == 1 and log.problem is not None
    monkeypatch.setattr(os, "write", real)
    log.record(event(1))
    assert log.problem is None
    log.close()
    assert checked(tmp_path).sound(allow_tail=False) and checked(tmp_path).size == 2


def test_a_torn_record_that_cannot_be_cut_off_holds_up_the_next_one_until_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    real, cut = os.write, os.ftruncate

    def failing(descriptor: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:10]))
    monkeypatch.setattr(os, "ftruncate", failing)
    for _ in range(2):
        with pytest.raises(EvidenceError, match="Input/output error"):
            log.record(event(0))
    monkeypatch.setattr(os, "write", real)
    monkeypatch.setattr(os, "ftruncate", cut)
    log.record(event(0))
    log.close()
    assert checked(tmp_path).sound(allow_tail=False) and checked(tmp_path).size == 1


def test_a_segment_that_cannot_be_begun_leaves_the_old_one_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path, segment_bytes=200)
    log.record(event(0))
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:10]))
    with pytest.raises(EvidenceError, match="No space left"):
        log.record(event(1))
    monkeypatch.setattr(os, "write", real)
    log.record(event(1))
    log.close()
    assert checked(tmp_path).sound(allow_tail=False) and checked(tmp_path).size == 2


@pytest.mark.root
def test_a_full_disk_is_said_and_the_log_goes_on_once_there_is_room(tmp_path: Path) -> None:
    """A real file system of 128 KiB. Entries are refused whole; those before stay; those after room was made follow."""
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "tmpfs", state], check=True, timeout=10)
    try:
        ballast = state / "ballast"
        log = opened(state, checkpoint_s=0.01)
        log.record(event(0))
        ballast.write_bytes(b"x" * 60_000)
        recorded, refused = 1, 0
        for number in range(1, 2000):
            try:
                log.record(event(number))
                recorded += 1
            except EvidenceError as error:
                assert "No space left on device" in str(error)
                refused += 1
            if refused == 20:
                break
        assert refused == 20 and log.size == recorded and log.problem is not None
        assert len(seen(state)) == recorded, "nothing of what was refused stands in the file"
        ballast.unlink()
        log.record(event(recorded))
        log.close()
        report = checked(state)
        assert report.sound(allow_tail=False) and report.size == recorded + 1
    finally:
        subprocess.run(["umount", state], check=True, timeout=10)


def test_a_log_that_is_being_written_can_be_checked(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=2000, checkpoint_s=0.001, sync_s=0.001)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            log.record(event(log.size))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        sizes = []
        for _ in range(8):
            report = checked(tmp_path)
            assert report.problem is None and report.sound(allow_tail=True)
            sizes.append(report.size)
    finally:
        stop.set()
        thread.join()
        log.close()
    assert sizes == sorted(sizes) and checked(tmp_path).sound(allow_tail=False)


_WRITES = """
import sys
from pathlib import Path
from tests.enforcer.evidence.logs import event, opened
log = opened(Path(sys.argv[1]), segment_bytes=3000, checkpoint_s=0.001, sync_s=0.001)
while True:
    sys.stdout.buffer.write(b"%d\\n" % log.record(event(log.size)))
    sys.stdout.buffer.flush()
"""


@pytest.mark.parametrize("after", [1, 50, 333])
def test_kill_9_in_the_middle_of_writes_loses_nothing_that_was_recorded(after: int, tmp_path: Path) -> None:
    acknowledged = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", _WRITES, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(after):
            line = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        line = ([line, *process.stdout.read().splitlines(keepends=True)])[-1]
        process.stdout.close()
        assert process.wait(10) == -signal.SIGKILL
        acknowledged = int(line) if line.endswith(b"\n") else acknowledged
        assert checked(tmp_path).size >= acknowledged and checked(tmp_path).sound(allow_tail=True)
    log = opened(tmp_path)
    assert log.size >= acknowledged and checked(tmp_path).sound(allow_tail=False), "a start signs the tail"
    log.close()


_JAILED = """
import asyncio, sys
from pathlib import Path
from enforcer.privilege import syscalls
import enforcer.evidence
from tests.enforcer.evidence.logs import event, opened
state = Path(sys.argv[1])
async def main():
    for _ in range(2):
        log = opened(state, segment_bytes=500, checkpoint_s=0.01)
        for number in range(20):
            position = log.record(event(number))
        await log.synced(position)
        log.close()
        segment = max(state.glob("evidence/entries-*"))
        with segment.open("ab") as file:
            file.write(b"torn")
loop = asyncio.new_event_loop()
syscalls.allow_daemon()
loop.run_until_complete(main())
log = opened(state)
log.close()
print("done", log.size)
"""


def test_the_log_needs_no_call_that_the_daemon_may_not_make(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _JAILED, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "done 42\n", done.stderr
    assert checked(tmp_path).sound(allow_tail=False)


def test_a_key_without_its_log_signs_no_other_one(tmp_path: Path) -> None:
    written(tmp_path, 3)
    folder_of(tmp_path).rename(tmp_path / "away")
    with pytest.raises(EvidenceError, match="is missing, and its key is there"):
        opened(tmp_path)
    (tmp_path / "away").rename(folder_of(tmp_path))
    opened(tmp_path).close()


def test_a_log_without_its_key_is_not_gone_on_with(tmp_path: Path) -> None:
    written(tmp_path, 3)
    keys.key_file(tmp_path).rename(tmp_path / "away")
    with pytest.raises(EvidenceError, match="is missing, and there is a log"):
        opened(tmp_path)


def test_a_first_start_that_was_interrupted_is_made_again(tmp_path: Path) -> None:
    written(tmp_path, 0)
    keys.key_file(tmp_path).unlink()
    (folder_of(tmp_path) / CHECKPOINTS).write_bytes(b"")
    written(tmp_path, 2)
    assert checked(tmp_path).sound(allow_tail=False) and checked(tmp_path).size == 2
