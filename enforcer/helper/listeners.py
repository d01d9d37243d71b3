"""The sockets that the daemon listens on, made fresh for each daemon: the gate's, in the guarded namespace, and the control socket."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from enforcer.kernel.errors import KernelError

BACKLOG = 4096


def gate() -> tuple[socket.socket, ...]:
    """The gate's sockets, bound but not listening yet: IPv4, and IPv6 where the namespace has it.

    On loopback, at any free port: sk_lookup hands them connections for every address. The program refuses whoever connects to
    that port itself.
    """
    opened = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT:
                continue
            raise
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address, 0))
            # A steered connection's own port is the guarded one. Inherited from here, this lets a server that was restarted bind it again
            # while clients are connected to the gate (inet_csk_bind_conflict; servers set it themselves). After bind: our port is ours alone.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRNOTAVAIL:  # the namespace has no such protocol, or switched it off
                continue
            raise
        opened.append(listener)
    if not opened:
        raise KernelError("the namespace has neither 127.0.0.1 nor ::1")
    return tuple(opened)


def control(path: Path) -> socket.socket:
    """The control socket, listening, for root alone. What stood there before is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(64)
    return listener
