"""kill -9 of the jury's member while it is asked about a result: that result is held, and the next one has another member."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.enforcer.jury.endpoint import FakeEndpoint, says
from tests.faults import world
from tests.faults.world import Client, items, new_item, processes, request, until
from tests.real import gate as gates


def test_a_member_killed_while_it_judges_holds_the_result_and_another_one_comes(tmp_path: Path) -> None:
    with world.upstream(tmp_path / "server") as server, FakeEndpoint(lambda _asked, _client: None) as endpoint:
        policy = world.ONE_WORKER + f'[jury]\nurl = "{endpoint.url}"\nmodel = "m"\nabove = 0.0\nbelow = 1.0\ntimeout_s = 12\n'
        with gates.run(tmp_path, server.port, policy=policy) as gate:
            with Client(gate.port) as client:
                client.send(request("clean", key="stalled"))
                assert endpoint.came.wait(world.LIMIT_S), "the jury was not asked"
                old = processes(gate, "jury")
                assert len(old) == 1 and not items(gate)
                world.signal_all(old, signal.SIGKILL)
                item = new_item(gate, set())
                answer = client.answer()
            assert item["id"].encode() in answer and b"garden fence" not in answer
            assert [verdict["reasons"][0]["rule"] for verdict in item["verdicts"] if verdict["judge"] == "jury"] == ["jury.crashed"]
            until(lambda: processes(gate, "jury") not in ([], old), "no other member came")
            endpoint.behaviour = says(False)
            until(lambda: b"garden fence" in world.ask_once(gate.port, "clean", key="again"), "the next result is not let through")
            assert world.approve(gate, item)["state"] == "approved"
            assert b"garden fence" in world.ask_once(gate.port, "clean", key="stalled") and server.runs("stalled") == 1
            gate.holdfast("audit", "verify", "--allow-tail")
