"""What the forked processes run. Imported in the child alone: the helper itself loads neither the relay nor the scanner."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable
from dataclasses import dataclass

from enforcer.helper.sights import TapPlan
from enforcer.inherited import Inherited
from enforcer.sandbox.plan import KeeperPlan
from escrow.jury_settings import JurySettings
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


def window(channel: socket.socket, listeners: tuple[socket.socket, ...]) -> Run:
    # By name: nothing here builds on the window's code, it is only started.
    run: Run = importlib.import_module("mcp_server.program").prepare(channel, listeners)
    return run


def jury(settings: JurySettings, channel: socket.socket) -> Run:
    from enforcer.jury import member as program

    prepared = program.prepare(settings)
    return lambda: program.serve(channel, prepared)


def taps(plan: TapPlan, channel: socket.socket) -> Run:
    from enforcer.helper import tapping as program

    return program.prepare(plan, channel)


def witness(port: int, tls: bool, channel: socket.socket) -> Run:
    from enforcer.witness import process as program

    return program.prepare(port, tls, channel)


def keeper(plan: KeeperPlan, channel: socket.socket) -> Run:
    from enforcer.sandbox import keeper as program

    return program.prepare(plan, channel)


@dataclass(frozen=True, slots=True)
class Programs:
    """Each is called in the child while it is still root, and returns what runs confined.

    An event loop is made in the latter: uvloop's would have an io_uring from before, which seccomp does not let it use.
    """

    daemon: Callable[[Inherited], Run] = daemon
    worker: Callable[[ScannerSettings, socket.socket], Run] = worker
    window: Callable[[socket.socket, tuple[socket.socket, ...]], Run] = window
    jury: Callable[[JurySettings, socket.socket], Run] = jury
    taps: Callable[[TapPlan, socket.socket], Run] = taps
    witness: Callable[[int, bool, socket.socket], Run] = witness
    keeper: Callable[[KeeperPlan, socket.socket], Run] = keeper
