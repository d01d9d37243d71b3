"""A jury with a real member process, asked about a real endpoint on loopback, and nothing of either left behind."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from enforcer.jury.client import Jury
from enforcer.jury.local import spawn_local
from escrow.jury_settings import JurySettings
from tests.enforcer.jury.endpoint import FakeEndpoint, says

Begin = Callable[..., "Bench"]


class Bench:
    """A jury and its member. member_timeout_s: the member's own deadline, where the daemon is to wait for longer (also for its start)."""

    def __init__(self, settings: JurySettings, member_timeout_s: float) -> None:
        self.settings, self.member_timeout_s = settings, member_timeout_s
        self.lost = 0
        self.jury = Jury(settings, self._lost)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self) -> None:
        sock, process = spawn_local(self.settings.model_copy(update={"timeout_s": self.member_timeout_s}))
        self.processes.append(process)
        self.jury.add(sock)

    def _lost(self) -> None:
        self.lost += 1


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(says(False)) as made:
        yield made


@pytest.fixture
async def begin(endpoint: FakeEndpoint) -> AsyncIterator[Begin]:
    """Start a jury that asks the endpoint."""
    made: list[Bench] = []

    def start(member_timeout_s: float = 10.0, **more: Any) -> Bench:
        bench = Bench(JurySettings.model_validate({"url": endpoint.url, "model": "test-model"} | more), member_timeout_s)
        made.append(bench)
        return bench

    yield start
    for bench in made:
        await bench.jury.close()
        for process in bench.processes:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
