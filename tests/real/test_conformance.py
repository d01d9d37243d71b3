"""The official conformance suite: whatever a server passes directly it passes through the gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real import conformance, server
from tests.real.conftest import GateFor, StartServer

pytestmark = pytest.mark.npm
SERVERS = [kind.name for kind in server.KINDS.values() if kind.transport == "http"]


@pytest.mark.parametrize("name", SERVERS)
def test_the_suite_itself_finds_something_that_passes(name: str, start_server: StartServer, tmp_path: Path) -> None:
    checks = conformance.run(start_server(name).url(), tmp_path)
    assert list(checks.values()).count("SUCCESS") >= 12, checks


@pytest.mark.parametrize("steer", [False, pytest.param(True, marks=pytest.mark.bpf)])
@pytest.mark.parametrize("name", SERVERS)
def test_nothing_that_passes_directly_fails_through_the_gate(
    name: str, steer: bool, start_server: StartServer, gate_for: GateFor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    direct = conformance.run(start_server(name).url(), tmp_path / "direct")
    target, gate = gate_for(name, steer)
    through = conformance.run(target.url(gate.port), tmp_path / "through")
    with capsys.disabled():
        print(f"\n{name}\n{conformance.beside(direct, through)}")
    assert conformance.lost(direct, through) == []
