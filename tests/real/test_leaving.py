"""Clients that go away in the middle of a call, in the session era: they resume the stream, or make the same call again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.real.conftest import GateFor
from tests.real.server import Running

ACCEPT = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


def _events(response: httpx.Response) -> Iterator[tuple[str, str]]:
    """(id, data) of each event as it comes."""
    event_id, data = "", []
    for line in response.iter_lines():
        name, _, value = line.partition(":")
        if name == "id":
            event_id = value.strip()
        elif name == "data":
            data.append(value.strip())
        elif not line and (event_id or data):
            yield event_id, "".join(data)
            data = []


def _open(http: httpx.Client, url: str) -> dict[str, str]:
    """Shake hands. Gives the headers of the session."""
    opened = http.post(url, json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO}, headers=ACCEPT)
    headers = ACCEPT | {"mcp-session-id": opened.headers["mcp-session-id"]}
    http.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=headers)
    return headers


def _slow(number: int, message: str) -> dict[str, Any]:
    arguments = {"seconds": 1.5, "steps": 1, "message": message}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "slow", "arguments": arguments}}


def _wait_runs(target: Running, message: str) -> None:
    deadline = time.monotonic() + 15
    while target.state.runs("slow", message=message) == 0:
        assert time.monotonic() < deadline, "the tool never ran"
        time.sleep(0.02)


@pytest.mark.parametrize("through", [False, True], ids=["directly", "through-the-gate"])
def test_a_dropped_stream_is_resumed_with_the_last_event_id(through: bool, gate_for: GateFor) -> None:
    target, gate = gate_for("py2-sse-answers", False)
    url, message = target.url(gate.port if through else None), f"resumed {through}"
    with httpx.Client(timeout=20) as http:
        headers = _open(http, url)
        with http.stream("POST", url, json=_slow(7, message), headers=headers) as response:
            last_id, _ = next(_events(response))
            _wait_runs(target, message)
        answer = None
        for _ in range(5):  # a stream that ends early is resumed again, as clients do (HTML, 9.2.3): the SDK's may end as the result comes
            with http.stream("GET", url, headers=headers | {"last-event-id": last_id}) as response:
                answers = (json.loads(data) for _, data in _events(response) if data)
                if (answer := next((answer for answer in answers if answer.get("id") == 7), None)) is not None:
                    break
    assert answer is not None and answer["result"]["content"][0]["text"] == "worked for 1.5 seconds"
    assert target.state.runs("slow", message=message) == 1


def test_the_same_call_again_while_the_first_still_runs_gets_its_result(gate_for: GateFor) -> None:
    target, gate = gate_for("py2-json-answers", False)
    url, message = target.url(gate.port), "called again"
    with httpx.Client(timeout=20) as http:
        headers = _open(http, url)
        with pytest.raises(httpx.ReadTimeout):
            http.post(url, json=_slow(1, message), headers=headers, timeout=httpx.Timeout(20, read=0.3))
        _wait_runs(target, message)
        headers = _open(http, url)  # as a host that starts anew does
        answer = http.post(url, json=_slow(2, message), headers=headers).json()
    assert answer["id"] == 2 and answer["result"]["content"][0]["text"] == "worked for 1.5 seconds"
    assert target.state.runs("slow", message=message) == 1
    assert not gate.items(state="approved"), "it was delivered"
