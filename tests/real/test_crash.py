"""kill -9 while a result is held: nothing gets through, and the same items stand there afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.real import client, gate, server
from tests.real.conftest import FULL
from tests.real.hostile import SECRET, document

STEERED = pytest.param("py2-legacy", True, marks=pytest.mark.bpf)
ALL = [("py2-legacy", False), pytest.param("py2-modern", True, marks=pytest.mark.bpf)] if FULL else []


@pytest.mark.parametrize(("name", "steer"), [("py2-modern", False), STEERED, *ALL])
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
