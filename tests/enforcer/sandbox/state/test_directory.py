"""A directory's copy."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path

import pytest

from enforcer.sandbox.state import directory
from enforcer.sandbox.state.directory import copy
from enforcer.sandbox.state.frozen import NotFrozen

pytestmark = pytest.mark.root


@pytest.fixture
def live(tmp_path: Path) -> Path:
    folder = tmp_path / "live"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "file").write_text("one")
    (folder / "empty").touch()
    return folder


def soon() -> float:
    return time.monotonic() + 5


def test_bytes_modes_owners_times_and_attributes_are_the_same(live: Path, tmp_path: Path) -> None:
    (live / "a" / "file").chmod(0o4751)
    os.chown(live / "a", 1234, 4321)
    os.utime(live / "a", ns=(1, 2))
    os.setxattr(live / "a" / "file", "user.mark", b"x")
    assert copy(str(live), str(tmp_path / "copy"), soon()) == ()
    file, folder = (tmp_path / "copy" / "a" / "file"), (tmp_path / "copy" / "a").stat()
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode), os.getxattr(file, "user.mark")) == ("one", 0o4751, b"x")
    assert (folder.st_uid, folder.st_gid, folder.st_mtime_ns) == (1234, 4321, 2)


def test_links_are_copied_as_links_and_names_of_one_file_stay_one(live: Path, tmp_path: Path) -> None:
    (live / "out").symlink_to("/etc/shadow")
    os.link(live / "a" / "file", live / "z")
    copy(str(live), str(tmp_path / "copy"), soon())
    assert os.readlink(tmp_path / "copy" / "out") == "/etc/shadow"
    assert (tmp_path / "copy" / "z").stat().st_ino == (tmp_path / "copy" / "a" / "file").stat().st_ino != (live / "z").stat().st_ino


def test_what_is_no_file_is_left_out_and_said(live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(live / "fifo")
    monkeypatch.chdir(live)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        assert copy(str(live), str(tmp_path / "copy"), soon()) == ("fifo", "socket")


def test_late_is_said(live: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFrozen, match="not within its time"):
        copy(str(live), str(tmp_path / "copy"), time.monotonic() - 1)


def test_a_link_in_the_directorys_place_is_not_followed(live: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(live)
    with pytest.raises(NotFrozen):
        copy(str(tmp_path / "link"), str(tmp_path / "copy"), soon())


def test_a_file_that_does_not_stand_still_is_given_up(live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.copy_file_range

    def written_meanwhile(*given: int) -> int:
        with (live / "a" / "file").open("a") as file:
            file.write("more")
        return real(*given)

    monkeypatch.setattr(directory.fcntl, "ioctl", _no_clone)
    monkeypatch.setattr(directory.os, "copy_file_range", written_meanwhile)
    monkeypatch.setattr(directory, "_SMALL", 0)
    with pytest.raises(NotFrozen, match="stand still"):
        copy(str(live), str(tmp_path / "copy"), soon())


def _no_clone(*_: object) -> None:
    raise OSError(95, "Operation not supported")
