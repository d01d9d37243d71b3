"""One instance for a namespace and port. The lock is the kernel's (fcntl(2), F_SETLK) and goes with its process, however that ends.

Not flock(2): a child that is being forked would hold it beyond its parent's end.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

FOLDER = Path("/run/holdfast/locks")


class Held(Exception):
    """Another instance has it. pid: that instance's helper, 0 where unknown."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid


def path(netns: int, port: int) -> Path:
    return FOLDER / f"{netns}-{port}"


def take(netns: int, port: int) -> int:
    """The descriptor that holds the lock until it is closed. Raises Held."""
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    FOLDER.chmod(0o700)
    FOLDER.parent.chmod(0o755)
    while True:
        fd = os.open(path(netns, port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            written = os.pread(fd, 32, 0).decode(errors="replace").strip()
            os.close(fd)
            raise Held(int(written) if written.isdecimal() else 0) from None
        if _is_still_there(fd, path(netns, port)):
            os.truncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
            return fd
        os.close(fd)  # its last owner removed it while we waited for it


def release(fd: int, netns: int, port: int) -> None:
    """Remove and let go."""
    path(netns, port).unlink(missing_ok=True)
    os.close(fd)


def _is_still_there(fd: int, at: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), at.stat())
    except FileNotFoundError:
        return False
