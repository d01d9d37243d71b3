"""A guarded namespace, a server in it, and instances that leave nothing behind whatever a test does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enforcer.helper.traces import remove_traces
from tests.enforcer.helper.world import Instance, Net, Server, net

Start = Callable[..., Instance]


@pytest.fixture
def guarded() -> Iterator[Net]:
    with net("a") as made:
        yield made


@pytest.fixture
def server(guarded: Net) -> Iterator[Server]:
    made = Server(guarded, 7700)
    yield made
    made.close()


@pytest.fixture
def start(tmp_path: Path, guarded: Net) -> Iterator[Start]:
    """Start an instance on port 7700 of the guarded namespace and wait until it is live."""
    made: list[Instance] = []

    def begin(port: int = 7700, netns: str | None = None, folder: str = "one", policy: str = "", wait: bool = True,
              extra: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Instance:  # fmt: skip
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        instance = Instance(port, netns or guarded.path, place, policy, extra, env)
        made.append(instance)
        return instance.wait_ready() if wait else instance

    yield begin
    for instance in made:
        instance.close()
    for instance in made:
        remove_traces(instance.runtime_dir)
