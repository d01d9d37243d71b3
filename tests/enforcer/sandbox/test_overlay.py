"""What was written, from real overlay mounts."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from enforcer.sandbox import overlay
from enforcer.sandbox.overlay import OPTIONS, Difference, difference
from escrow.sandbox.effects import Change, Write

pytestmark = pytest.mark.root
FILE = stat.S_IFREG | 0o644


@dataclass(frozen=True)
class Overlay:
    lower: Path
    upper: Path
    merged: Path

    def difference(self) -> Difference:
        return difference(str(self.upper), str(self.lower), "/srv")


@pytest.fixture
def over(tmp_path: Path) -> Iterator[Overlay]:
    os.umask(0o022)
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for folder in (lower, upper, work, merged):
        folder.mkdir()
    (lower / "kept").write_text("kept")
    (lower / "old").write_text("old")
    (lower / "folder" / "inner").mkdir(parents=True)
    (lower / "folder" / "inner" / "deep").write_text("deep")
    (lower / "link").symlink_to("/etc/shadow")
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work},{OPTIONS}", str(merged)], check=True)
    yield Overlay(lower, upper, merged)
    subprocess.run(["umount", str(merged)], check=True)


def test_nothing_written_is_nothing(over: Overlay) -> None:
    assert (over.merged / "old").read_text() == "old"
    assert over.difference() == Difference(())


def test_created_changed_and_deleted_with_their_modes(over: Overlay) -> None:
    (over.merged / "new").write_text("new")
    (over.merged / "old").write_text("other")
    (over.merged / "kept").unlink()
    (over.merged / "folder" / "program").write_text("#!/bin/sh")
    (over.merged / "folder" / "program").chmod(0o4755)
    assert over.difference() == Difference(
        (
            Write("/srv/folder/program", Change.CREATED, stat.S_IFREG | 0o4755),
            Write("/srv/kept", Change.DELETED),
            Write("/srv/new", Change.CREATED, FILE),
            Write("/srv/old", Change.CHANGED, FILE),
        )
    )


def test_a_file_copied_up_and_left_as_it_was_is_no_write(over: Overlay) -> None:
    (over.merged / "old").open("r+").close()
    os.utime(over.merged / "kept", (0, 0))
    assert over.difference() == Difference(())


def test_the_same_bytes_with_another_mode_or_owner_are_a_write(over: Overlay) -> None:
    (over.merged / "old").chmod(0o666)
    os.chown(over.merged / "kept", 65534, 65534)
    assert over.difference().writes == (Write("/srv/kept", Change.CHANGED, FILE), Write("/srv/old", Change.CHANGED, stat.S_IFREG | 0o666))


def test_a_deleted_folder_takes_all_in_it_along(over: Overlay) -> None:
    shutil.rmtree(over.merged / "folder")
    assert {write.path for write in over.difference().writes} == {"/srv/folder", "/srv/folder/inner", "/srv/folder/inner/deep"}


def test_a_folder_made_anew_hides_what_was_in_it(over: Overlay) -> None:
    shutil.rmtree(over.merged / "folder")
    (over.merged / "folder").mkdir()
    (over.merged / "folder" / "inner").write_text("a file now")
    assert set(over.difference().writes) == {
        Write("/srv/folder/inner/deep", Change.DELETED),
        Write("/srv/folder/inner", Change.DELETED),
        Write("/srv/folder", Change.CHANGED, stat.S_IFDIR | 0o755),
        Write("/srv/folder/inner", Change.CHANGED, FILE),
    }


def test_links_are_compared_and_never_followed(over: Overlay) -> None:
    (over.merged / "link").unlink()
    (over.merged / "link").symlink_to("/etc/passwd")
    (over.merged / "up").symlink_to("/")
    link = stat.S_IFLNK | 0o777
    assert over.difference() == Difference((Write("/srv/link", Change.CHANGED, link), Write("/srv/up", Change.CREATED, link)))


def test_a_folder_in_a_links_place_is_not_looked_for_behind_the_link(over: Overlay) -> None:
    (over.lower / "etc").symlink_to("/etc")
    (over.merged / "etc").unlink()
    (over.merged / "etc").mkdir()
    (over.merged / "etc" / "passwd").write_text("")
    assert Write("/srv/etc/passwd", Change.CREATED, FILE) in over.difference().writes


def test_fifos_and_sockets_are_writes_and_keep_nobody(over: Overlay) -> None:
    os.mkfifo(over.merged / "fifo", 0o600)
    assert over.difference() == Difference((Write("/srv/fifo", Change.CREATED, stat.S_IFIFO | 0o600),))


def test_redirects_are_incomplete(over: Overlay) -> None:
    (over.merged / "folder" / "x").write_text("")
    os.setxattr(over.upper / "folder", "trusted.overlay.redirect", b"other")
    assert over.difference().incomplete == ("the overlay redirects a file or holds its metadata alone",)


def test_a_name_that_is_not_utf8_is_incomplete(over: Overlay) -> None:
    os.close(os.open(os.fsencode(over.merged) + b"/\xff", os.O_CREAT | os.O_WRONLY))
    assert over.difference().incomplete == ("a written file's name is not UTF-8",)


def test_more_than_the_bound_is_incomplete(over: Overlay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "MAX_ENTRIES", 3)
    for number in range(5):
        (over.merged / str(number)).touch()
    found = over.difference()
    assert len(found.writes) == 3 and found.incomplete == ("what was written is not known whole: more than 3 files",)


def test_what_is_not_there_is_incomplete(tmp_path: Path) -> None:
    assert difference(str(tmp_path / "none"), str(tmp_path), "/srv").incomplete == ("what was written cannot be read: No such file or directory",)
