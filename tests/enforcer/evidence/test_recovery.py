"""Starts after a crash: torn ends are dropped and told, everything else is taken up, damage is refused."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enforcer.evidence import EvidenceError
from enforcer.evidence.files import CHECKPOINTS, folder_of
from enforcer.evidence.reading import entries
from escrow.evidence.canonical import decode
from tests.enforcer.evidence.logs import checked, crashed, event, lines_of, one_segment, opened, written


@pytest.fixture
def crash(memory: Path) -> Path:
    """A log of four entries, two of them under a checkpoint, left as a kill -9 leaves it."""
    written(memory / "live", 2)
    log = opened(memory / "live")
    log.record(event(2))
    log.record(event(3))
    state = crashed(log, memory / "live", memory / "crash")
    log.close()
    return state


def events(state: Path) -> list[tuple[str, object]]:
    found = [decode(entry) for _, entry in entries(folder_of(state))]
    return [(one["event"], one.get("why") if one["event"] != "loss" else one["count"]) for one in found]


def test_a_start_signs_the_tail_that_a_crash_left(crash: Path) -> None:
    assert checked(crash).tail == 2
    log = opened(crash)
    assert checked(crash).sound(allow_tail=False) and log.size == 4
    log.close()


def test_a_torn_record_is_dropped_and_the_loss_is_an_entry(crash: Path) -> None:
    path = one_segment(crash)
    torn = path.read_bytes() + b"half a record"
    path.write_bytes(torn)
    opened(crash).close()
    assert events(crash)[4:] == [("loss", len(b"half a record"))]
    assert checked(crash).sound(allow_tail=False)


def test_the_log_can_be_cut_at_any_byte_past_the_checkpoint_and_at_none_before(crash: Path, memory: Path) -> None:
    rows = lines_of(one_segment(crash))
    whole, signed = b"".join(rows), len(b"".join(rows[:3]))
    for size in range(len(whole) + 1):
        state = Path(shutil.copytree(crash, memory / "cut"))
        one_segment(state).write_bytes(whole[:size])
        if size < signed:
            with pytest.raises(EvidenceError):
                opened(state)
            assert one_segment(state).stat().st_size == size, "what is damaged is left as it is"
        else:
            opened(state).close()
            assert checked(state).sound(allow_tail=False)
            left = whole[signed:size].count(b"\n")
            torn = whole[:size].rpartition(b"\n")[2]
            assert events(state)[2:] == [("enforcing", f"event {n}") for n in (2, 3)][:left] + ([("loss", len(torn))] if torn else [])
        shutil.rmtree(state)


def test_a_torn_checkpoint_is_dropped(memory: Path) -> None:
    *_, first, second = written(memory / "live", 2, 2)
    path = folder_of(memory / "live") / CHECKPOINTS
    whole = path.read_bytes()
    for left in range(1, len(second.encode())):
        state = Path(shutil.copytree(memory / "live", memory / "cut"))
        (folder_of(state) / CHECKPOINTS).write_bytes(whole[:-left])
        opened(state).close()
        assert checked(state).sound(allow_tail=False), left
        assert first in (folder_of(state) / CHECKPOINTS).read_text()
        shutil.rmtree(state)


def test_a_file_system_that_left_zeros_in_place_of_the_end_loses_them(crash: Path) -> None:
    path = one_segment(crash)
    rows = lines_of(path)
    path.write_bytes(b"".join(rows[:4]) + bytes(len(rows[4])))
    opened(crash).close()
    assert events(crash)[3:] == [("loss", len(rows[4]))] and checked(crash).sound(allow_tail=False)


def test_entries_after_a_damaged_one_past_the_checkpoint_are_not_kept(crash: Path) -> None:
    path = one_segment(crash)
    path.write_bytes(path.read_bytes().replace(b"event 2", b"event 7"))
    log = opened(crash)
    assert log.size == 3
    log.close()
    assert [name for name, _ in events(crash)] == ["enforcing", "enforcing", "loss"]


def test_a_segment_that_was_being_begun_is_begun_again(memory: Path) -> None:
    written(memory / "live", 4, segment_bytes=200)
    folder = folder_of(memory / "live")
    name = "entries-0000000000000004"
    written(memory / "live", 1, segment_bytes=200)
    header = lines_of(folder / name)[0]
    (folder / name).unlink()
    rows = (folder / CHECKPOINTS).read_bytes().splitlines(keepends=True)
    (folder / CHECKPOINTS).write_bytes(b"".join(rows[:-5]))
    for size in range(len(header) + 1):
        state = Path(shutil.copytree(memory / "live", memory / "cut"))
        (folder_of(state) / name).write_bytes(header[:size])
        written(state, 2, segment_bytes=200)
        assert checked(state).sound(allow_tail=False) and [name for name, _ in events(state)] == ["enforcing"] * 6
        shutil.rmtree(state)


@pytest.mark.parametrize(
    "file, old, new, why",
    [
        ("entries", b"event 1", b"event 7", "entry 1 of the evidence log is damaged"),
        ("entries", b'"size":0', b'"size":1', "the header of entries-0000000000000000 is damaged"),
        (CHECKPOINTS, b"\n2\n", b"\n1\n", "not signed by its key"),
        (CHECKPOINTS, b"\n2\n", b"\n02\n", "checkpoints are damaged"),
    ],
)
def test_damage_to_what_was_signed_is_refused_and_left_as_it_is(crash: Path, file: str, old: bytes, new: bytes, why: str) -> None:
    path = one_segment(crash) if file == "entries" else folder_of(crash) / file
    damaged = path.read_bytes().replace(old, new)
    path.write_bytes(damaged)
    with pytest.raises(EvidenceError, match=why):
        opened(crash)
    assert path.read_bytes() == damaged


def test_a_log_that_is_shorter_than_its_checkpoint_is_refused(tmp_path: Path) -> None:
    written(tmp_path, 3)
    path = one_segment(tmp_path)
    path.write_bytes(b"".join(lines_of(path)[:-1]))
    with pytest.raises(EvidenceError, match="has 2 entries, and its last checkpoint was made over 3"):
        opened(tmp_path)


def test_a_log_of_another_tree_than_its_checkpoints_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a", 3)
    written(tmp_path / "b", 3)
    shutil.copy(one_segment(tmp_path / "b"), one_segment(tmp_path / "a"))
    with pytest.raises(EvidenceError, match="is not what its last checkpoint signed"):
        opened(tmp_path / "a")


def test_a_strange_file_among_the_logs_is_refused(tmp_path: Path) -> None:
    written(tmp_path, 3)
    (folder_of(tmp_path) / "lock").touch()
    with pytest.raises(EvidenceError, match="1 files that are not the log's"):
        opened(tmp_path)


def test_a_start_reads_only_from_the_segment_of_the_last_checkpoint_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, 20, segment_bytes=300)
    read: list[str] = []
    real = Path.open

    def noticed(path: Path, *rest: object, **named: object) -> object:
        read.append(path.name)
        return real(path, *rest, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", noticed)
    log = opened(tmp_path)
    log.close()
    segments = sorted(path.name for path in folder_of(tmp_path).glob("entries-*"))
    assert len(segments) > 5 and {name for name in read if name.startswith("entries-")} == {segments[-1]}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.binary(max_size=30)), max_size=6), st.sampled_from([200, 300, 100_000]))
def test_any_sequence_of_sessions_and_crashes_ends_in_a_sound_log(memory: Path, sessions: list[tuple[int, bool, bytes]], segment_bytes: int) -> None:
    base = Path(tempfile.mkdtemp(dir=memory))
    state, expected = base / "0", 0
    for number, (count, clean, rubbish) in enumerate(sessions):
        log = opened(state, segment_bytes=segment_bytes)
        expected = log.size
        for _ in range(count):
            expected = log.record(event(expected))
        left = crashed(log, state, base / str(number + 1)) if not clean else None
        log.close()
        if left is not None:
            state = left
            newest = max(folder_of(state).glob("entries-*"))
            newest.write_bytes(newest.read_bytes() + rubbish.replace(b"\n", b""))
        assert checked(state).sound(allow_tail=not clean) and checked(state).size == expected
    opened(state).close()
    assert checked(state).sound(allow_tail=False)
