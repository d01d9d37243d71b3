"""A directory's copy: by reflink (FICLONE) where the file system has it, else by bytes; by descriptors, never through a symbolic link.

It is not one instant: files that change while they are copied are copied again, then given up; a writer that changes two files between their copies
is not noticed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from dataclasses import dataclass, field

from enforcer.sandbox.state.frozen import NotFrozen, in_time
from enforcer.sandbox.tree import Bounds, Entry, Unfinished, open_file, open_folder, open_root, walk

MAX_ENTRIES = 100_000
MAX_BYTES = 4 << 30
MAX_LEFT_OUT = 64
FICLONE = 0x40049409
"""`_IOW(0x94, 9, int)`, linux/fs.h."""

_TRIES = 3
_PART = 8 << 20
_SMALL = 64 << 10
_NO_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)


@dataclass(slots=True)
class _Copy:
    source: int
    target: int
    until: float
    device: int
    most: int
    left_out: list[str] = field(default_factory=list)
    cloning: bool = True
    copied: int = 0
    linked: dict[tuple[int, int], str] = field(default_factory=dict)
    """Files with more than one name, by device and inode → where the first was copied to."""

    def run(self) -> None:
        folders: list[tuple[str, os.stat_result]] = [("", os.fstat(self.source))]
        parent, at = os.dup(self.target), ""
        try:
            for entry in walk(self.source, Bounds(MAX_ENTRIES, self.until)):
                if entry.status.st_dev != self.device:
                    raise NotFrozen("another file system is mounted within the state")
                folder = entry.path[: -len(entry.name) - 1]
                if folder != at:  # depth first: mostly it stays in one folder
                    below = descend(self.target, folder)
                    os.close(parent)
                    parent, at = below, folder
                if entry.folder:
                    folders.append((entry.path, entry.status))
                self._one(entry, parent)
        finally:
            os.close(parent)
        for path, status in reversed(folders):  # their times are touched by what is made in them
            self._folder_like(path, status)

    def _one(self, entry: Entry, parent: int) -> None:
        if entry.folder:
            os.mkdir(entry.name, 0o700, dir_fd=parent)
        elif entry.link:
            os.symlink(os.readlink(entry.name, dir_fd=entry.parent), entry.name, dir_fd=parent)
            os.chown(entry.name, entry.status.st_uid, entry.status.st_gid, dir_fd=parent, follow_symlinks=False)
        elif entry.regular:
            self._file(entry, parent, entry.name)
        elif len(self.left_out) < MAX_LEFT_OUT:
            self.left_out.append(entry.path)

    def _folder_like(self, path: str, status: os.stat_result) -> None:
        target = descend(self.target, path)
        try:
            source = descend(self.source, path)
            try:
                _attributes(source, target)
            finally:
                os.close(source)
            _like(target, status)
        finally:
            os.close(target)

    def _file(self, entry: Entry, parent: int, name: str) -> None:
        inode = (entry.status.st_dev, entry.status.st_ino)
        if entry.status.st_nlink > 1 and (first := self.linked.get(inode)) is not None:
            os.link(first, name, src_dir_fd=self.target, dst_dir_fd=parent, follow_symlinks=False)
            return
        source = open_file(entry.name, entry.parent)
        try:
            before = os.fstat(source)
            if not stat.S_ISREG(before.st_mode):
                raise NotFrozen("the state changed while it was copied")
            target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
            try:
                status = self._steady(source, target, before)
                _attributes(source, target)
                _like(target, status)
            finally:
                os.close(target)
        finally:
            os.close(source)
        if entry.status.st_nlink > 1:
            self.linked[inode] = entry.path

    def _steady(self, source: int, target: int, before: os.stat_result) -> os.stat_result:
        """What the source is, before and after it was copied."""
        for attempt in range(_TRIES):
            if attempt:
                os.ftruncate(target, 0)
            self._bytes(source, target, before.st_size)
            after = os.fstat(source)
            if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (after.st_size, after.st_mtime_ns, after.st_ctime_ns):
                return after
            before = after
        raise NotFrozen("a file of the state does not stand still")

    def _bytes(self, source: int, target: int, size: int) -> None:
        self.copied += size
        if self.copied > self.most:
            raise NotFrozen(f"the state is larger than {self.most} bytes")
        if self.cloning and size:
            try:
                fcntl.ioctl(target, FICLONE, source)
                return
            except OSError as error:
                if error.errno not in _NO_CLONE:
                    raise
                self.cloning = False
        if size <= _SMALL:  # cheaper than a splice
            whole = os.pread(source, size, 0)
            if os.pwrite(target, whole, 0) != len(whole):
                raise NotFrozen("the copy could not be written whole")
            return
        at = 0
        while at < size:
            in_time(self.until)
            part = os.copy_file_range(source, target, min(_PART, size - at), at, at)
            if part == 0:
                return  # it became shorter: its times tell
            at += part


def copy(path: str, target: str, until: float, most: int = MAX_BYTES) -> tuple[str, ...]:
    """Copies the directory `path` into the new directory `target`; the paths of what was left out. until: on `time.monotonic()`. most: bytes.

    Raises NotFrozen.
    """
    try:
        source = open_root(path)
        try:
            os.mkdir(target, 0o700)
            into = open_root(target)
            try:
                work = _Copy(source, into, until, os.fstat(source).st_dev, most)
                work.run()
                return tuple(work.left_out)
            finally:
                os.close(into)
        finally:
            os.close(source)
    except Unfinished as why:
        raise NotFrozen(f"the directory could not be copied: {why}") from None
    except OSError as error:
        raise NotFrozen(f"the directory could not be copied: {error.strerror or error}") from None


def copy_file(source: int, path: str, parent: int, name: str, until: float) -> None:
    """One file below the directory `source`, into the new file `name` of the folder `parent`. Raises NotFrozen and OSError."""
    folder, base = _folder(source, path)
    try:
        entry = Entry(path, base, folder, os.stat(base, dir_fd=folder, follow_symlinks=False))
        _Copy(source, parent, until, entry.status.st_dev, MAX_BYTES)._file(entry, parent, name)
    finally:
        os.close(folder)


def descend(root: int, path: str) -> int:
    """A descriptor of a folder below root, none of its steps a link."""
    current = os.dup(root)
    for part in path.split("/") if path else ():
        try:
            child = open_folder(part, current)
        finally:
            os.close(current)
        current = child
    return current


def _folder(root: int, path: str) -> tuple[int, str]:
    folder, _, name = path.rpartition("/")
    return descend(root, folder), name


def _attributes(source: int, target: int) -> None:
    """Extended attributes, ACLs among them; not the overlay's own, which mean something else in a lower layer."""
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    for name in names:
        if not name.startswith("trusted.overlay."):
            os.setxattr(target, name, os.getxattr(source, name))


def _like(target: int, status: os.stat_result) -> None:
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
