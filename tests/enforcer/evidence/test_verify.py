"""The checker: whatever is done to the log's files is found, and the first bad entry named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from enforcer.evidence import files, keys, recovery
from enforcer.evidence.files import CHECKPOINTS, folder_of, frame, parse_frame
from enforcer.evidence.verify import verify
from escrow.evidence.note import Verifier
from escrow.evidence.tree import leaf_hash
from tests.enforcer.evidence.logs import checked, crashed, event, lines_of, notes, one_segment, opened, written


def problem(state: Path, verifier: Verifier | None = None) -> tuple[int | None, str]:
    found = checked(state, verifier).problem
    assert found is not None and not checked(state, verifier).sound(allow_tail=True)
    return found.entry, found.text


def test_a_log_that_ended_cleanly_is_sound(tmp_path: Path) -> None:
    written(tmp_path, 7, 0, 5, segment_bytes=500)
    report = checked(tmp_path)
    assert report.problem is None and report.sound(allow_tail=False)
    assert (report.size, report.signed, report.tail, report.checkpoints) == (12, 12, 0, 3)
    assert len(list(folder_of(tmp_path).glob("entries-*"))) > 1


def test_an_empty_log_is_sound_for_its_emptiness_is_signed(tmp_path: Path) -> None:
    written(tmp_path, 0)
    assert checked(tmp_path).sound(allow_tail=False) and checked(tmp_path).signed == 0


def test_every_flipped_bit_of_every_file_is_found(memory: Path) -> None:
    written(memory, 2, 2, segment_bytes=500)
    folder, verifier = folder_of(memory), keys.public_key(memory)
    assert checked(memory, verifier).sound(allow_tail=False) and len(list(folder.iterdir())) == 3
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        descriptor = os.open(path, os.O_WRONLY)
        for at in range(len(data)):
            for bit in range(8):
                os.pwrite(descriptor, bytes([data[at] ^ 1 << bit]), at)
                assert not checked(memory, verifier).sound(allow_tail=False), f"{path.name}: bit {bit} of byte {at}"
            os.pwrite(descriptor, data[at : at + 1], at)
        os.close(descriptor)
    assert checked(memory, verifier).sound(allow_tail=False)


def test_a_changed_entry_is_named(tmp_path: Path) -> None:
    written(tmp_path, 9)
    path = one_segment(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"event 5", b"event 4"))
    assert problem(tmp_path) == (5, "it is not what it was when it was written: its hash differs")


def test_a_changed_entry_with_its_hash_made_to_fit_is_found_by_the_checkpoint_over_it(tmp_path: Path) -> None:
    written(tmp_path, 3, 4, 2)
    rewrite(one_segment(tmp_path), lambda rows: [*rows[:5], rows[5].replace(b"event 5", b"event 4"), *rows[6:]])
    assert problem(tmp_path) == (3, "of entries 3 to 6 one is not what was signed")


def rewrite(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change a segment's entries as somebody would who knows the format: every line's hash fits."""
    head, *rows = lines_of(path)
    path.write_bytes(head + b"".join(frame(leaf_hash(entry), entry) for entry in change([parse_frame(row)[1] for row in rows])))


def test_a_removed_entry_is_found_where_the_next_one_stands_in_its_place(tmp_path: Path) -> None:
    written(tmp_path, 9)
    rewrite(one_segment(tmp_path), lambda rows: rows[:3] + rows[4:])
    assert problem(tmp_path) == (3, "another entry stands in its place")


def test_two_swapped_entries_are_found_at_the_first(tmp_path: Path) -> None:
    written(tmp_path, 9)
    rewrite(one_segment(tmp_path), lambda rows: [*rows[:2], rows[6], *rows[3:6], rows[2], *rows[7:]])
    assert problem(tmp_path) == (2, "another entry stands in its place")


def test_an_inserted_entry_is_found(tmp_path: Path) -> None:
    written(tmp_path, 9)
    rewrite(one_segment(tmp_path), lambda rows: [*rows[:4], rows[4], *rows[4:]])
    assert problem(tmp_path) == (5, "another entry stands in its place")


@pytest.mark.parametrize("left", range(9))
def test_entries_removed_from_the_end_are_missed_by_the_checkpoint(left: int, tmp_path: Path) -> None:
    written(tmp_path, 9)
    rewrite(one_segment(tmp_path), lambda rows: rows[:left])
    assert problem(tmp_path) == (left, "the log ends here, and a checkpoint signed 9 entries: some were removed")


def test_a_file_cut_within_a_signed_entry_is_found(tmp_path: Path) -> None:
    written(tmp_path, 4)
    path = one_segment(tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    assert problem(tmp_path) == (3, "the file ends within it, and a checkpoint signed it")


def test_another_form_of_the_same_json_is_found(tmp_path: Path) -> None:
    written(tmp_path, 4)
    rewrite(one_segment(tmp_path), lambda rows: [rows[0].replace(b":", b": ", 1), *rows[1:]])
    assert problem(tmp_path) == (0, "it is JSON, but not in canonical form")


def test_a_missing_segment_is_found(tmp_path: Path) -> None:
    written(tmp_path, 90, segment_bytes=2000)
    first, second, *_ = sorted(folder_of(tmp_path).glob("entries-*"))
    second.unlink()
    at = len(lines_of(first)) - 1
    assert problem(tmp_path)[0] == at and "are missing" in problem(tmp_path)[1]
    first.unlink()
    assert problem(tmp_path) == (0, "the log's beginning is missing")


def test_missing_checkpoints_are_found(tmp_path: Path) -> None:
    published = written(tmp_path, 3, 3)
    path = folder_of(tmp_path) / CHECKPOINTS
    path.write_text(published[0])
    assert not checked(tmp_path).sound(allow_tail=False) and checked(tmp_path).tail == 6
    path.write_text("")
    assert problem(tmp_path) == (None, "there is no checkpoint: nothing is signed")
    path.unlink()
    assert problem(tmp_path) == (None, "it is missing")


def test_a_log_that_is_not_there_is_not_sound(tmp_path: Path) -> None:
    written(tmp_path, 3)
    for path in folder_of(tmp_path).iterdir():
        path.unlink()
    folder_of(tmp_path).rmdir()
    assert problem(tmp_path) == (None, "there is no log here")


def test_a_file_that_does_not_belong_to_the_log_is_found(tmp_path: Path) -> None:
    written(tmp_path, 3)
    (folder_of(tmp_path) / "entries-0").touch()
    assert problem(tmp_path) == (None, "it does not belong to the log")


def test_a_segment_that_is_a_link_is_found(tmp_path: Path) -> None:
    written(tmp_path, 3)
    path = one_segment(tmp_path)
    path.symlink_to(path.rename(tmp_path / "elsewhere"))
    assert problem(tmp_path) == (None, "it does not belong to the log")


def test_checkpoints_in_another_order_are_found(tmp_path: Path) -> None:
    first, second, third = written(tmp_path, 3, 3)
    path = folder_of(tmp_path) / CHECKPOINTS
    for texts in ([first, third, second], [first, second, second, third]):
        path.write_text("".join(texts))
        assert "does not go beyond the one before it" in problem(tmp_path)[1]


def test_a_log_signed_by_another_key_is_found(tmp_path: Path) -> None:
    """Somebody writes a whole log of their own, sound in itself, in the place of this one."""
    written(tmp_path / "ours", 5)
    written(tmp_path / "theirs", 5)
    assert checked(tmp_path / "theirs").sound(allow_tail=False)
    assert problem(tmp_path / "theirs", keys.public_key(tmp_path / "ours"))[1] == "checkpoint 0 is not signed by this key"


def test_another_key_of_the_same_name_is_found(tmp_path: Path) -> None:
    written(tmp_path, 5)
    own = keys.public_key(tmp_path)
    assert problem(tmp_path, Verifier(own.name, bytes(32)))[1] == "checkpoint 0 is not signed by this key"
    assert problem(tmp_path, Verifier("holdfast/other/00", own.public))[1] == "checkpoint 0 is not signed by this key"


def test_a_rollback_leaves_a_sound_log_and_is_found_by_a_checkpoint_kept_elsewhere(tmp_path: Path) -> None:
    written(tmp_path, 5)
    published = written(tmp_path, 0)
    crashed(opened(tmp_path), tmp_path, tmp_path.with_name("old"))
    published += written(tmp_path, 4)
    old = tmp_path.with_name("old")
    assert checked(old).sound(allow_tail=False), "nothing in the files themselves tells"
    report = checked(old, None, notes(tmp_path, published))
    assert report.problem is not None and report.problem.entry == 5
    assert report.problem.text == "the log ends here, and a checkpoint kept elsewhere signed 9 entries: it was rolled back"
    assert checked(tmp_path, None, notes(tmp_path, published)).sound(allow_tail=False)


def test_a_log_rewritten_with_the_key_is_found_by_a_checkpoint_kept_elsewhere(tmp_path: Path) -> None:
    """Who has taken the machine has the key; the checkpoints that left it before still tell."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    kept = written(ours, 5)
    theirs.mkdir()
    (ours / "keys").rename(theirs / "keys")
    recovery.begin(folder_of(theirs))  # the daemon itself would not: see test_log
    log = opened(theirs)
    for number in (0, 1, 7, 3, 4, 5, 6):
        log.record(event(number))
    log.close()
    assert checked(theirs).sound(allow_tail=False)
    report = checked(theirs, None, notes(theirs, kept))
    assert report.problem is not None and report.problem.text == "a checkpoint kept elsewhere signed other 5 entries: the log was rewritten"


def test_a_kept_checkpoint_that_the_key_did_not_sign_is_found(tmp_path: Path) -> None:
    published = written(tmp_path, 3)
    forged = [text.replace("\n3\n", "\n2\n") for text in published]
    report = checked(tmp_path, None, notes(tmp_path, forged))
    assert report.problem is not None and "is not signed by this key" in report.problem.text


def test_entries_past_the_last_checkpoint_are_a_tail_and_sound_only_where_allowed(tmp_path: Path) -> None:
    log = opened(tmp_path / "state")
    for number in range(3):
        log.record(event(number))
    state = crashed(log, tmp_path / "state", tmp_path / "crashed")
    log.close()
    report = checked(state)
    assert (report.size, report.signed, report.tail, report.torn) == (3, 0, 3, False)
    assert report.sound(allow_tail=True) and not report.sound(allow_tail=False)


def test_a_torn_record_at_the_end_is_part_of_the_tail(tmp_path: Path) -> None:
    log = opened(tmp_path / "state")
    log.record(event(0))
    state = crashed(log, tmp_path / "state", tmp_path / "crashed")
    log.close()
    path = one_segment(state)
    path.write_bytes(path.read_bytes()[:-1])
    report = checked(state)
    assert report.torn and report.tail == 0 and report.problem is None
    assert report.sound(allow_tail=True) and not report.sound(allow_tail=False)


def test_a_damaged_entry_in_the_tail_is_no_tail(tmp_path: Path) -> None:
    log = opened(tmp_path / "state")
    for number in range(3):
        log.record(event(number))
    state = crashed(log, tmp_path / "state", tmp_path / "crashed")
    log.close()
    path = one_segment(state)
    path.write_bytes(path.read_bytes().replace(b"event 1", b"event 7"))
    assert problem(state)[0] == 1


def test_a_line_without_end_takes_no_more_memory_than_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, 2)
    monkeypatch.setattr(files, "MAX_LINE", 1000)
    path = one_segment(tmp_path)
    path.write_bytes(path.read_bytes() + b"x" * 5000)
    assert problem(tmp_path) == (2, "it is longer than 1000 bytes")


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    written(tmp_path, 4200)
    told: list[tuple[int, int]] = []
    verify(folder_of(tmp_path), keys.public_key(tmp_path), (), lambda done, total: told.append((done, total)))
    assert len(told) == 1 and 0 < told[0][0] < told[0][1] == one_segment(tmp_path).stat().st_size
