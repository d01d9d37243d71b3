"""The supervisor's window: where it listens, and starting it where there is no helper to confine it.

`python -m enforcer.helper.window FD FD` is that start: the same program as under the helper, with what a process can
give up by itself: new privileges, capabilities, memory, files, system calls. It stays the same user, with the same files' names in sight.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from enforcer.helper.backoff import next_delay
from enforcer.inherited import WindowPlace

DEFAULT = "127.0.0.1:8790"
PATH = "/mcp"
_BACKLOG = 64
_FILES = 400


class NotListening(Exception):
    """The window cannot be where it was asked for; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The window's listening sockets; none where there is no window."""

    place: WindowPlace
    listeners: tuple[socket.socket, ...] = ()


def listen(asked: str | None) -> Opened:
    """asked: HOST:PORT, `none`, or None for the default, which may be taken: several instances run side by side. Raises NotListening."""
    if asked == "none":
        return Opened(WindowPlace(None, "turned off (--mcp-listen none)"))
    try:
        listener = _listen(DEFAULT if asked is None else asked)
    except NotListening as error:
        if asked is not None:
            raise
        return Opened(WindowPlace(None, f"{error}; --mcp-listen gives it another address"))
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{PATH}"
    plain = "" if ipaddress.ip_address(host.partition("%")[0]).is_loopback else "not on loopback: tokens pass in the clear unless a proxy adds TLS"
    return Opened(WindowPlace(url, plain), (listener,))


def _listen(where: str) -> socket.socket:
    host, _, port = where.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise NotListening(f"--mcp-listen {where}: HOST:PORT is wanted, or none")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise NotListening(f"the window cannot listen on {where}: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise NotListening(f"the window cannot listen on {where}: {error.strerror or error}") from None
    return listener


class LocalWindow:
    """The window as the daemon's own child. add: is given each window's socket."""

    def __init__(self, listeners: tuple[socket.socket, ...], add: Callable[[socket.socket], None]) -> None:
        self._listeners, self._add = listeners, add
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._delay_s, self._started_at, self._closed = 0.0, 0.0, False

    def start(self) -> None:
        self._started_at = asyncio.get_running_loop().time()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            fds = (theirs.fileno(), *(listener.fileno() for listener in self._listeners))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "enforcer.helper.window", *map(str, fds)],
                pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                env={"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"},
            )  # fmt: skip
        self._add(ours)

    def lost(self) -> None:
        """Its socket ended: start another, later each time."""
        if self._closed:
            return
        self._end()
        loop = asyncio.get_running_loop()
        self._delay_s = next_delay(self._delay_s, loop.time() - self._started_at)
        self._timer = loop.call_later(self._delay_s, self.start)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _give_up() -> None:
    """What needs no privilege to be given up, for good."""
    import resource

    for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, _FILES)):
        with contextlib.suppress(ValueError, OSError):  # it may be lower already
            resource.setrlimit(what, (most, most))
    if sys.platform != "linux":
        return
    from enforcer.privilege import capabilities, confine, libc, syscalls

    resource.setrlimit(resource.RLIMIT_AS, (confine.WINDOW_MEMORY_BYTES, confine.WINDOW_MEMORY_BYTES))
    with contextlib.suppress(OSError):  # only who may set capabilities may empty the bounding set
        capabilities.empty_bounding_set()
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    libc.capset(0, 0, 0)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    syscalls.allow_window()


def main() -> int:
    """Entry of a window that the daemon started itself."""
    parser = argparse.ArgumentParser(prog="enforcer.helper.window")
    parser.add_argument("daemon", type=int)
    parser.add_argument("listeners", type=int, nargs="+")
    given = parser.parse_args()
    listeners = tuple(socket.socket(fileno=fd) for fd in given.listeners)
    run = importlib.import_module("mcp_server.program").prepare(socket.socket(fileno=given.daemon), listeners)
    _give_up()
    return int(run())


if __name__ == "__main__":
    os._exit(main())
