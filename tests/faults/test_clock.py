"""The wall clock jumps by days, both ways, under a running instance: deadlines keep their length, nothing comes out by it, the evidence is sound."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import world
from tests.faults.world import Client, Refused, items, new_item, request, until
from tests.real import gate as gates

HERE = Path(__file__).parent
DAY_S = 86_400
POLICY = world.ONE_WORKER.replace("[escrow]", "[escrow]\nhold_for_s = 3")


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
def test_a_clock_that_jumps_by_days_releases_nothing_and_hangs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, clock = tmp_path / "clock.so", tmp_path / "clock"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(library), str(HERE / "clock.c")], check=True)
    clock.write_text("0")
    with world.upstream(tmp_path / "server") as server:
        monkeypatch.setenv("HOLDFAST_CLOCK", str(clock))
        monkeypatch.setenv("LD_PRELOAD", str(library))
        with gates.run(tmp_path, server.port, policy=POLICY) as gate:
            # A day ahead while a client waits: its claim comes in time, and the item is still a person's to decide.
            with Client(gate.port) as waiting:
                waiting.send(request("hostile", key="ahead"))
                item = new_item(gate, set())
                clock.write_text(str(DAY_S))
                assert world.control(gate, "status")["enforcing"]
                claim = waiting.answer()
            assert item["id"].encode() in claim and not world.leaked(claim)
            world.assert_served(gate.port)
            assert world.approve(gate, item)["state"] == "approved"
            assert world.leaked(world.ask_once(gate.port, "hostile", key="ahead")) and server.runs("ahead") == 1

            # Two days back: the time that an item waits for a decision is as long as it was.
            known = set(items(gate))
            with Client(gate.port) as left:
                left.send(request("hostile", key="back"))
                item = new_item(gate, known)
                clock.write_text(str(-DAY_S))
                assert not world.leaked(left.answer())
            until(lambda: items(gate)[item["id"]]["state"] in ("expired", "abandoned"), "it never expires")
            assert isinstance(world.approve(gate, item), Refused)
            assert not world.leaked(world.ask_once(gate.port, "hostile", key="back"))

            # Ahead over a restart: what was held meanwhile is over, and refused.
            known = set(items(gate))
            assert not world.leaked(world.ask_once(gate.port, "hostile", key="restart"))
            item = new_item(gate, known)
            gate.crash()
            clock.write_text(str(DAY_S))
            gate.start_again()
            until(lambda: items(gate)[item["id"]]["state"] in ("expired", "abandoned"), "it never expires")
            assert isinstance(world.approve(gate, item), Refused)
            world.assert_served(gate.port)
            gate.holdfast("audit", "verify", "--allow-tail")
