"""Fixtures: the real servers, each started once a run, and the pairs of client and server that can speak to each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.real import client, gate, server
from tests.real.client import Kind as ClientKind
from tests.real.client import Session, connect

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


FULL = os.environ.get("HOLDFAST_FULL") == "1"
"""Whether every client meets every server in every test; otherwise each of them comes at least once in each group of tests."""

PAIRS = [(c.name, s.name) for c in client.KINDS.values() for s in server.KINDS.values() if c.transport == s.transport]
"""Every client with every server of its transport."""

CHOSEN = [
    ("py2-modern", "py2-stateless"),
    ("py2-legacy", "py2-json-answers"),
    ("py1-http", "py2-sse-answers"),
    ("npm-http", "npm-http"),
    ("npm-http", "py1-http"),
    ("py2-old-sse", "npm-old-sse"),
    ("py1-old-sse", "py1-old-sse"),
    ("npm-old-sse", "py2-old-sse"),
]
"""Every client and every server, each at least once."""

STEERED = CHOSEN if FULL else [("py2-modern", "py2-stateless"), ("py1-http", "py2-sse-answers"), ("npm-old-sse", "py2-old-sse")]
"""Pairs that meet through steering too, one of each transport at least: what differs between proxy and steering is below HTTP."""


@pytest.fixture(params=PAIRS if FULL else CHOSEN, ids=lambda pair: f"{pair[0]}-to-{pair[1]}")
def pair(request: pytest.FixtureRequest, start_server: StartServer) -> tuple[client.Kind, server.Running]:
    """A client and a running server."""
    kind = client.KINDS[request.param[0]]
    if reason := client.missing(kind):
        pytest.skip(reason)
    return kind, start_server(request.param[1])


@dataclass(frozen=True, slots=True)
class Gated:
    """A client, a server, the gate in front of it, and the way to the same tools without the gate."""

    client: ClientKind
    server: server.Running
    gate: gate.Gate
    url: str
    direct_url: str

    def connect(self, headers: dict[str, str] | None = None) -> AbstractContextManager[Session]:
        """The client, connected through the gate."""
        return connect(self.client, self.url, headers)


GateFor = Callable[[str, bool], tuple[server.Running, gate.Gate]]


@pytest.fixture(scope="session")
def gate_for(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GateFor]:
    """A gate for a server by name; steered, it guards a twin (same directory, other port), so that the first stays reachable without."""
    if reason := gate.missing():
        pytest.skip(reason)
    running: dict[tuple[str, bool], tuple[server.Running, gate.Gate]] = {}
    with ExitStack() as stack:

        def start(name: str, steer: bool) -> tuple[server.Running, gate.Gate]:
            if (name, steer) not in running:
                target = start_server(name)
                if steer:
                    target = stack.enter_context(server.run(target.kind, target.state.root))
                where = tmp_path_factory.mktemp(f"gate-{name}")
                running[name, steer] = target, stack.enter_context(gate.run(where, target.port, steer=steer))
            return running[name, steer]

        yield start


def ways(pairs: list[tuple[str, str]] = CHOSEN, chosen: Callable[[str, str], bool] = lambda client_name, server_name: True) -> list[Any]:
    """Parameters for `gated`: these pairs (all of them in a full run) as far as they are chosen, through a proxy, and some of them steered."""
    proxied = [pytest.param((*pair, False), id=f"{pair[0]}-to-{pair[1]}-proxied") for pair in (PAIRS if FULL else pairs) if chosen(*pair)]
    steered = [
        pytest.param((*pair, True), id=f"{pair[0]}-to-{pair[1]}-steered", marks=pytest.mark.bpf)
        for pair in STEERED
        if chosen(*pair) and (FULL or pair in pairs)
    ]
    return proxied + steered


@pytest.fixture(params=ways())
def gated(request: pytest.FixtureRequest, start_server: StartServer, gate_for: GateFor) -> Gated:
    """A client and a server with a gate between them; narrow it with parametrize("gated", ways(…), indirect=True)."""
    client_name, server_name, steer = request.param
    kind = client.KINDS[client_name]
    if reason := client.missing(kind):
        pytest.skip(reason)
    target, holdfast = gate_for(server_name, steer)
    return Gated(kind, target, holdfast, target.url(holdfast.port), start_server(server_name).url())
