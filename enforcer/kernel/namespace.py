"""The server's network namespace: found by process or by path, entered for good, and watched until it vanishes.

Our own descriptor keeps a namespace alive, and so does every socket in it, so its end is not seen in the link or in the descriptor.
What is watched is what the operator named: the process, or what the path leads to.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from enforcer.kernel.errors import KernelError, Missing, NoNamespace
from enforcer.privilege import libc

_OWN = "/proc/self/ns/net"


@dataclass(frozen=True, slots=True)
class Namespace:
    """fd, inode: of the namespace. pidfd: of the process that named it, or None. path: that named it, or None. shown: for people."""

    fd: int
    device: int
    inode: int
    shown: str
    pidfd: int | None = None
    path: Path | None = None

    def enter(self) -> None:
        """Move this process (it must have one thread) into the namespace. Raises Missing."""
        try:
            libc.setns(self.fd, libc.CLONE_NEWNET)
        except OSError as error:
            raise Missing(f"cannot enter the network namespace {self.shown}: {error.strerror}") from None

    def vanished(self) -> str | None:
        """Why the namespace is no longer the one that was asked for; None as long as it is."""
        if self.pidfd is not None and select.select([self.pidfd], [], [], 0)[0]:
            return f"the process of the guarded namespace ({self.shown}) has ended"
        if self.path is not None:
            try:
                now = self.path.stat()
            except OSError:
                return f"the guarded namespace {self.shown} was removed"
            if (now.st_dev, now.st_ino) != (self.device, self.inode):
                return f"the guarded namespace {self.shown} was replaced by another"
        return None


def find(named: str | None) -> Namespace:
    """The namespace of `--netns PID|PATH`; our own for None. Raises NoNamespace."""
    if named is None:
        return _opened(_OWN, "this one")
    if not named.isdecimal():
        return _opened(named, named, path=Path(named).absolute())
    try:
        pidfd = os.pidfd_open(int(named))
    except (OSError, OverflowError):
        raise NoNamespace(f"there is no process {named}") from None
    opened = _opened(f"/proc/{named}/ns/net", f"of process {named}", pidfd=pidfd)
    if opened.vanished():  # it ended in between, and the number may be another's by now
        raise NoNamespace(f"there is no process {named}")
    return opened


def _opened(file: str, shown: str, pidfd: int | None = None, path: Path | None = None) -> Namespace:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NoNamespace(f"there is no network namespace at {file}: {error.strerror}") from None
    found = os.fstat(fd)
    if found.st_dev != os.stat(_OWN).st_dev:  # every namespace is a file of the one nsfs
        os.close(fd)
        raise NoNamespace(f"{file} is no network namespace")
    return Namespace(fd, found.st_dev, found.st_ino, shown, pidfd, path)


def loopback_is_up() -> bool:
    """Whether the loopback interface of the namespace we are in is up: the gate and the server speak over it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, 0x8913, struct.pack("16sH14x", b"lo", 0))  # SIOCGIFFLAGS
        except OSError as error:
            raise KernelError(f"the namespace has no loopback interface: {error.strerror}") from None
    return bool(struct.unpack("16sH14x", answer)[1] & 1)  # IFF_UP
