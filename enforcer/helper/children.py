"""Forked processes: made, confined, waited for, ended.

A fork and not a new program: the confined user may be unable to reach the installation, and imports what it needs while still root.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

from enforcer.privilege import confine
from enforcer.privilege.confine import Confinement

Prepare = Callable[[], Callable[[], int | None]]
"""What a child runs: imports and loads as root, before any foreign byte, and returns what to run once it is confined."""


@dataclass(frozen=True, slots=True)
class Child:
    """pidfd: of the child, ours to close (see `reap`)."""

    name: str
    pid: int
    pidfd: int

    async def ended(self) -> str:
        """Wait for its end; how it ended, for people."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self.pidfd, _resolve, done)
        try:
            await done
        finally:
            loop.remove_reader(self.pidfd)
        return self._reap()

    def kill(self) -> None:
        """End it now. Nothing happens where it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def _reap(self) -> str:
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        code = os.waitstatus_to_exitcode(status)
        return f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"


def _resolve(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def start(name: str, prepare: Prepare, confinement: Confinement, keep: Iterable[int]) -> Child:
    """Fork. keep: the descriptors that the child uses. The caller has one thread."""
    parent = os.getpid()
    kept = tuple(keep)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be(name, prepare, confinement, kept, parent)
    return Child(name, pid, os.pidfd_open(pid))


def _be(name: str, prepare: Prepare, confinement: Confinement, keep: tuple[int, ...], parent: int) -> NoReturn:
    """The child's whole life."""
    code = 1
    try:
        confine.begin(name, parent, keep, confinement)
        run = prepare()
        confine.finish(confinement, parent)
        code = run() or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # a forked child must not unwind into its parent's stack
        traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:
            os._exit(code)
