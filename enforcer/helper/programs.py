"""What the forked processes run. Imported in the child alone: the helper itself loads neither the relay nor the scanner."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from enforcer.inherited import Inherited
from escrow.scanner_settings import ScannerSettings

Run = Callable[[], int | None]
"""What runs confined; its exit code."""


def daemon(inherited: Inherited) -> Run:
    from enforcer import daemon as program

    program.prepare()
    return lambda: program.run(inherited)


def worker(settings: ScannerSettings, channel: socket.socket) -> Run:
    from enforcer.scanner import worker as program

    scanner = program.prepare(settings)
    return lambda: program.serve(channel, scanner)


@dataclass(frozen=True, slots=True)
class Programs:
    """Each is called in the child while it is still root, and returns what runs confined.

    An event loop is made in the latter: uvloop's would have an io_uring from before, which seccomp does not let it use.
    """

    daemon: Callable[[Inherited], Run] = daemon
    worker: Callable[[ScannerSettings, socket.socket], Run] = worker
