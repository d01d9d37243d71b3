"""Fixtures: the real servers, each started once a run, and the pairs of client and server that can speak to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.real import client, server

StartServer = Callable[[str], server.Running]


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start a server by name, or give the one that already runs."""
    running: dict[str, server.Running] = {}
    with ExitStack() as stack:

        def start(name: str) -> server.Running:
            if name not in running:
                kind = server.KINDS[name]
                if reason := server.missing(kind):
                    pytest.skip(reason)
                running[name] = stack.enter_context(server.run(kind, tmp_path_factory.mktemp(name)))
            return running[name]

        yield start


PAIRS = [(c.name, s.name) for c in client.KINDS.values() for s in server.KINDS.values() if c.transport == s.transport]
"""Every client with every server of its transport."""


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]}-to-{pair[1]}")
def pair(request: pytest.FixtureRequest, start_server: StartServer) -> tuple[client.Kind, server.Running]:
    """A client and a running server."""
    kind = client.KINDS[request.param[0]]
    if reason := client.missing(kind):
        pytest.skip(reason)
    return kind, start_server(request.param[1])
