"""The main job, by every client with every server: clean results pass unchanged, hostile ones wait for a person."""

from __future__ import annotations

import json

import pytest

from tests.real import client, server
from tests.real.conftest import CHOSEN, Gated, ways
from tests.real.hostile import SECRET, clean, document

_OURS = [*CHOSEN, ("py2-old-sse", "py1-old-sse")]
_ASKING = [("py2-modern", "py2-sse-answers"), ("py2-legacy", "py2-sse-answers"), ("npm-http", "py1-http"), *_OURS]


def _has_our_tools(client_name: str, server_name: str) -> bool:
    return not server_name.startswith("npm")


def _streams(client_name: str, server_name: str) -> bool:
    """Whether the server can say something before the result."""
    return _has_our_tools(client_name, server_name) and server_name not in ("py2-json-answers", "py2-stateless")


def _takes_ten_mebibytes(client_name: str, server_name: str) -> bool:
    """mcp 2.x itself refuses an SSE event over 1 MiB."""
    return _has_our_tools(client_name, server_name) and not (client_name.startswith("py2") and _streams(client_name, server_name))


def _call_for(target: server.Running, name: str, text: str) -> tuple[str, dict[str, str]]:
    """The tool and the arguments that make this server answer with the text."""
    if target.kind.python is None:
        return "echo", {"message": text}
    target.state.write_document(name, text)
    return "read_document", {"name": name}


def test_what_is_clean_passes_unchanged(gated: Gated) -> None:
    target = gated.server
    tool, arguments = _call_for(target, *clean())
    steps = ({"do": "list_tools"}, {"do": "list_resources"}, {"do": "list_prompts"}, {"do": "call", "name": tool, "arguments": arguments})
    with client.connect(gated.client, gated.direct_url) as session:
        direct = [session.step(**step)["value"] for step in steps]
    with gated.connect() as session:
        through = [session.step(**step).get("value") for step in steps]
    assert json.dumps(through) == json.dumps(direct)


def test_a_hostile_result_is_held_and_an_approval_releases_it_exactly(gated: Gated) -> None:
    target, gate = gated.server, gated.gate
    tool, arguments = _call_for(target, *document())
    with client.connect(gated.client, gated.direct_url) as session:
        direct = session.call(tool, **arguments)["value"]
    known = gate.known()
    with gated.connect() as session:
        session.send(do="call", name=tool, arguments=arguments)
        item = gate.wait_item(known, tool=tool)
        gate.approve(item)
        outcome = session.receive()
        if SECRET not in json.dumps(outcome):  # the claim came first: the same call collects it
            assert outcome["value"]["isError"], outcome
            outcome = session.call(tool, **arguments)
        assert outcome["value"] == direct
        assert session.step(do="list_tools")["ok"]


def test_a_denied_result_never_reaches_the_client_and_it_goes_on_working(gated: Gated) -> None:
    target, gate = gated.server, gated.gate
    tool, arguments = _call_for(target, *document())
    known = gate.known()
    with gated.connect() as session:
        session.send(do="call", name=tool, arguments=arguments)
        gate.deny(gate.wait_item(known, tool=tool))
        first = session.receive()
        again = session.call(tool, **arguments)
        for outcome in (first, again):
            assert outcome["ok"] and outcome["value"]["isError"], outcome
            assert SECRET not in json.dumps(outcome)
        assert session.step(do="list_tools")["ok"]


def test_a_claim_is_collected_by_the_same_call_and_the_tool_runs_once(gated: Gated) -> None:
    target, gate = gated.server, gated.gate
    if target.kind.python is None:
        tool, arguments = "echo", {"message": document()[1]}
    else:
        tool, arguments = _call_for(target, *document())
    known = gate.known()
    with gated.connect() as session:
        claim = session.call(tool, **arguments)
        assert claim["value"]["isError"] and SECRET not in json.dumps(claim), claim
        item = gate.wait_item(known, tool=tool)
        assert item["id"] in json.dumps(claim)
        session.vanish()
    with gated.connect({"Authorization": "Bearer somebody-else"}) as stranger:
        assert SECRET not in json.dumps(stranger.call(tool, **arguments))
    gate.approve(item)
    with gated.connect() as session:  # a host that reconnects with a new session
        assert SECRET in json.dumps(session.call(tool, **arguments))
    if target.kind.python is not None:
        assert target.state.runs(tool, **arguments) == 2, "once for the first principal, once for the stranger"


@pytest.mark.parametrize("gated", ways(_OURS, _has_our_tools), indirect=True)
def test_two_calls_meant_to_be_parallel_both_run(gated: Gated) -> None:
    target = gated.server
    name = clean()[0]
    with gated.connect() as session:
        step = {"do": "call", "name": "count", "arguments": {"name": name}}
        answers = session.step(do="parallel", steps=[step, step])["value"]
    assert all(answer["ok"] for answer in answers) and target.state.runs("count", name=name) == 2


@pytest.mark.parametrize("gated", ways(_OURS, _has_our_tools), indirect=True)
def test_a_running_tool_is_not_cut_off_and_its_progress_arrives(gated: Gated) -> None:
    target = gated.server
    with gated.connect() as session:
        outcome = session.call("slow", seconds=2, steps=4, message="working")
        assert outcome["value"]["content"][0]["text"] == "worked for 2.0 seconds", outcome
        if _streams(gated.client.name, target.kind.name):
            assert {"progress": 2, "message": "working"} in outcome["events"]


@pytest.mark.parametrize(
    "gated", ways([("py2-modern", "py2-stateless"), ("npm-http", "py2-sse-answers"), ("npm-old-sse", "py2-old-sse")], _takes_ten_mebibytes), indirect=True
)
def test_a_result_of_ten_mebibytes_passes(gated: Gated) -> None:
    with gated.connect() as session:
        outcome = session.step(do="call", name="big", arguments={"size": 10 << 20})
        assert len(outcome["value"]["content"][0]["text"]) == 10 << 20


@pytest.mark.parametrize("gated", ways(_ASKING, _streams), indirect=True)
def test_a_question_to_the_user_passes_while_the_call_is_open(gated: Gated) -> None:
    with gated.connect() as session:
        outcome = session.call("ask", question="which colour?")
        assert outcome["value"]["content"][0]["text"] == "the user said: blue", outcome
