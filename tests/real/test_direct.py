"""The instruments themselves: every client reaches every server without a gate. What fails here says nothing about Holdfast."""

from __future__ import annotations

import pytest

from tests.real import client, server
from tests.real.conftest import StartServer

Pair = tuple[client.Kind, server.Running]


def test_every_client_lists_and_calls_on_every_server(pair: Pair) -> None:
    kind, target = pair
    with client.connect(kind, target.url()) as session:
        listed = session.step(do="list_tools")
        assert "echo" in {tool["name"] for tool in listed["value"]["tools"]}
        if target.kind.python is None:
            assert session.call("echo", message="hello")["value"]["content"][0]["text"] == "Echo: hello"
            return
        before = target.state.runs("echo")
        assert session.call("echo", text="hello")["value"]["content"][0]["text"] == "hello"
        assert target.state.runs("echo") == before + 1
        answers = session.step(do="parallel", steps=[{"do": "call", "name": "echo", "arguments": {"text": str(n)}} for n in range(4)])
        assert [answer["value"]["content"][0]["text"] for answer in answers["value"]] == ["0", "1", "2", "3"]
        target.state.write_document("plain", "a plain document")
        assert session.call("read_document", name="plain")["value"]["content"][0]["text"] == "a plain document"
        assert session.step(do="read", uri="doc://plain")["value"]["contents"][0]["text"] == "a plain document"
        assert "a plain document" in str(session.step(do="prompt", name="quote", arguments={"name": "plain"})["value"])
        assert session.call("weather", city="Oslo")["value"]["structuredContent"]["celsius"] == 17
        assert session.call("fail", text="no")["value"]["isError"]


@pytest.mark.parametrize("name", [name for name in client.KINDS if not name.startswith("npm")])
def test_questions_reach_the_user_and_answers_the_tool(name: str, start_server: StartServer) -> None:
    kind = client.KINDS[name]
    target = start_server("py2-old-sse" if kind.transport == "sse" else "py2-sse-answers")
    with client.connect(kind, target.url()) as session:
        outcome = session.call("ask", question="which colour?")
        assert outcome["value"]["content"][0]["text"] == "the user said: blue", outcome
        assert {"elicitation": "which colour?"} in outcome["events"]
