"""The table of answers, cell by cell, as real clients see it: kind × transport × {held past the limit, denied, expired}.

After every cell the client goes on working, in the same session.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.real import client, gate
from tests.real.conftest import FULL, StartServer
from tests.real.hostile import SECRET, document
from tests.real.server import Running

CODES = {"held": -32090, "denied": -32091, "expired": -32092}
TIMES = {"held": "claim_after_s = 0.5", "denied": "claim_after_s = 30", "expired": "claim_after_s = 30\nhold_for_s = 1"}
PAIRS = [
    ("py2-modern", "py2-stateless"),
    ("py2-legacy", "py2-sse-answers"),
    ("npm-http", "py1-http"),
    ("npm-old-sse", "py2-old-sse"),
] + ([("py1-http", "py2-json-answers"), ("npm-http", "py2-stateless"), ("py1-old-sse", "py1-old-sse")] if FULL else [])
RESULTS: dict[str, dict[str, Any]] = {
    "tools/call": {"do": "call", "name": "read_document", "arguments": {"name": "{}"}},
    "resources/read": {"do": "read", "uri": "doc://{}"},
    "prompts/get": {"do": "prompt", "name": "quote", "arguments": {"name": "{}"}},
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A connected client, and why nothing is released to it."""

    why: str
    target: Running
    gate: gate.Gate
    session: client.Session

    def ask(self, kind: str, step: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Take a step whose message of this kind is held. Gives the outcome and the item."""
        known = self.gate.known()
        self.session.send(**step)
        if self.why == "denied":
            self.gate.deny(self.gate.wait_item(known, kind=kind))
        outcome = self.session.receive()
        assert SECRET not in json.dumps(outcome)
        echo = self.session.call("echo", text="still here")
        assert echo["value"]["content"][0]["text"] == "still here"
        return outcome, self.gate.wait_item(known, kind=kind)


@pytest.fixture(params=[(*pair, why) for pair in PAIRS for why in CODES], ids="-".join)
def cell(request: pytest.FixtureRequest, start_server: StartServer, tmp_path: Path) -> Iterator[Cell]:
    name, server_name, why = request.param
    kind = client.KINDS[name]
    if reason := client.missing(kind) or gate.missing():
        pytest.skip(reason)
    target = start_server(server_name)
    policy = gate.POLICY.replace("claim_after_s = 1", TIMES[why])
    with gate.run(tmp_path, target.port, policy=policy) as holdfast, client.connect(kind, target.url(holdfast.port)) as session:
        yield Cell(why, target, holdfast, session)


def test_each_kind_has_its_answer_and_the_client_goes_on_working(cell: Cell) -> None:
    for kind, template in RESULTS.items():
        name, text = document()
        cell.target.state.write_document(name, text)
        outcome, item = cell.ask(kind, json.loads(json.dumps(template).replace("{}", name)))
        if kind == "tools/call":
            assert outcome["ok"] and outcome["value"]["isError"], outcome
            assert item["id"] in outcome["value"]["content"][0]["text"]
        else:
            assert outcome["error"]["code"] == CODES[cell.why], outcome
            assert outcome["error"]["data"] == {"escrow_id": item["id"], "state": cell.why}
        assert item["state"] == cell.why
    if cell.target.kind.name in ("py2-stateless", "py2-json-answers"):
        return  # nothing but answers comes from these

    outcome, item = cell.ask("server-request", {"do": "call", "name": "ask", "arguments": {"question": document()[1]}})
    told = outcome["value"]["isError"] if outcome["ok"] else outcome["error"]["kind"] == "rpc"  # each SDK's server fails the call in its own way
    assert told, f"the server was told that its question did not pass: {outcome}"
    assert not [event for event in outcome["events"] if "elicitation" in event]

    name, text = document()
    cell.target.state.write_document(name, text)
    known = cell.gate.known()
    outcome = cell.session.call("log", name=name)
    assert outcome["value"]["content"][0]["text"] == "logged" and outcome["events"] == [], "a notification is dropped, its call is not"
    assert cell.gate.wait_item(known, kind="notification")
