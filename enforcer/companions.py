"""Workers, a juror and a keeper of twins without a helper: in proxy mode the daemon starts them itself, and again when they end."""

from __future__ import annotations

import asyncio
import socket
import subprocess

from enforcer.jury.client import Jury
from enforcer.jury.local import spawn_local as spawn_jury
from enforcer.sandbox.client import Twins
from enforcer.sandbox.local import spawn_local as spawn_keeper
from enforcer.sandbox.plan import KeeperPlan
from enforcer.scanner.local import spawn_local
from enforcer.scanner.pool import WorkerPool
from escrow.policy import Policy

_PAUSE_S = 1.0
_KEEPER_END_S = 10.0
"""A keeper takes its twins' mounts and groups away before it ends."""


class Companions:
    """Nothing is started before `start`; whoever has a helper never calls it."""

    def __init__(self, policy: Policy, keeper: KeeperPlan | None = None) -> None:
        self._policy, self._keeper = policy, keeper
        self._started: list[tuple[socket.socket, subprocess.Popen[bytes]]] = []
        self._pool: WorkerPool | None = None
        self._jury: Jury | None = None
        self._twins: Twins | None = None
        self._keepers: list[tuple[socket.socket, subprocess.Popen[bytes]]] = []

    def start(self, pool: WorkerPool, jury: Jury | None, twins: Twins | None = None) -> None:
        self._pool, self._jury, self._twins = pool, jury, twins
        for _ in range(self._policy.scanner.workers):
            self._spawn_worker()
        if jury is not None:
            self._spawn_jury()
        self._spawn_keeper()

    def keeper_lost(self) -> None:
        if self._twins is not None:
            asyncio.get_running_loop().call_later(_PAUSE_S, self._spawn_keeper)

    def worker_lost(self) -> None:
        if self._pool is not None:
            asyncio.get_running_loop().call_later(_PAUSE_S, self._spawn_worker)

    def jury_lost(self) -> None:
        if self._jury is not None:
            asyncio.get_running_loop().call_later(_PAUSE_S, self._spawn_jury)

    def stop(self) -> None:
        """From here on nothing is started again."""
        self._pool = self._jury = self._twins = None

    def close(self) -> None:
        self.stop()
        for sock, process in self._started:
            sock.close()
            process.kill()
            process.wait()
        for sock, _ in self._keepers:
            sock.close()
        for _, process in self._keepers:
            try:
                process.wait(_KEEPER_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _spawn_keeper(self) -> None:
        if self._twins is not None and self._keeper is not None and not self._twins.missing:
            self._keepers = [(s, p) for s, p in self._keepers if p.poll() is None]
            self._keepers.append(spawn_keeper(self._keeper))
            self._twins.add(self._keepers[-1][0])

    def _spawn_worker(self) -> None:
        if self._pool is not None:
            self._pool.add(self._kept(*spawn_local(self._policy.scanner)))

    def _spawn_jury(self) -> None:
        if self._jury is not None and self._policy.jury is not None:
            self._jury.add(self._kept(*spawn_jury(self._policy.jury)))

    def _kept(self, sock: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket:
        self._started = [(s, p) for s, p in self._started if p.poll() is None]
        self._started.append((sock, process))
        return sock
