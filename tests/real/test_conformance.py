"""The official conformance suite: whatever a server passes directly it passes through the gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real import conformance, server
from tests.real.conftest import FULL, GateFor, StartServer

pytestmark = pytest.mark.npm
SERVERS = [kind.name for kind in server.KINDS.values() if kind.transport == "http"]
STEERED = SERVERS if FULL else ["py2-json-answers"]
WAYS = [(name, False) for name in SERVERS] + [pytest.param(name, True, marks=pytest.mark.bpf) for name in STEERED]


@pytest.mark.parametrize(("name", "steer"), WAYS)
def test_nothing_that_passes_directly_fails_through_the_gate(
    name: str, steer: bool, start_server: StartServer, gate_for: GateFor, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    direct = conformance.run(start_server(name).url(), tmp_path / "direct")
    target, gate = gate_for(name, steer)
    through = conformance.run(target.url(gate.port), tmp_path / "through")
    record_property("shown", f"\n{name}{' steered' if steer else ''}\n{conformance.beside(direct, through)}")
    assert list(direct.values()).count("SUCCESS") >= 12, "the suite itself finds hardly anything that passes"
    assert conformance.lost(direct, through) == []
