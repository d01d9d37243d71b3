"""kill -9 while a result is held: nothing gets through, and the same items stand there afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.real import client, gate, server
from tests.real.hostile import SECRET, document


@pytest.mark.parametrize("steer", [False, pytest.param(True, marks=pytest.mark.bpf)])
@pytest.mark.parametrize("name", ["py2-modern", "py2-legacy"])
def test_a_held_result_survives_kill_9_and_is_released_after_it(name: str, steer: bool, tmp_path: Path) -> None:
    if reason := gate.missing():
        pytest.skip(reason)
    title, text = document()
    kind = client.KINDS[name]
    with server.run(server.KINDS["py2-stateless"], tmp_path / "server") as target, gate.run(tmp_path, target.port, steer=steer) as holdfast:
        target.state.write_document(title, text)
        with client.connect(kind, target.url(holdfast.port)) as session:
            session.send(do="call", name="read_document", arguments={"name": title})
            item = holdfast.wait_item(set(), tool="read_document")
            holdfast.crash()
            assert SECRET not in json.dumps(session.receive())
            session.vanish()
        holdfast.start_again()
        assert [one["id"] for one in holdfast.items(state="held")] == [item["id"]]
        holdfast.approve(item)
        with client.connect(kind, target.url(holdfast.port)) as session:
            assert SECRET in json.dumps(session.call("read_document", name=title))
        assert target.state.runs("read_document", name=title) == 1
