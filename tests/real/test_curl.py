"""curl as a client: no SDK, every transport, held and released, with and without a session."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import Any

import pytest

from tests.real import hostile
from tests.real.conftest import GateFor

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
BOTH = ("-H", "Content-Type: application/json", "-H", "Accept: application/json, text/event-stream")


def curl(url: str, body: dict[str, Any] | None, *options: str, seconds: int = 20) -> tuple[int, dict[str, str], str]:
    """One request: status, headers, body."""
    data = () if body is None else ("--data-binary", json.dumps(body))
    command = ["curl", "--silent", "--show-error", "--include", "--no-buffer", "--max-time", str(seconds), *BOTH, *options, *data, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 10)
    assert done.returncode in (0, 28), done.stderr  # 28: our own time limit, for streams without an end
    head, _, rest = done.stdout.replace("\r\n", "\n").partition("\n\n")
    lines = head.splitlines()
    return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line), rest


def messages(body: str) -> list[dict[str, Any]]:
    """The JSON-RPC messages of a body, JSON or an event stream."""
    events = [line[6:] for line in body.splitlines() if line.startswith("data: ") and len(line) > 6]
    return [json.loads(text) for text in (events or [body])]


def request(number: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


HELLO = request(0, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "curl", "version": "8"})


@pytest.mark.parametrize("name", ["py2-json-answers", "py2-sse-answers", "npm-http"])
def test_a_session_by_hand(name: str, gate_for: GateFor) -> None:
    server, gate = gate_for(name, False)
    url = server.url(gate.port)
    status, headers, body = curl(url, HELLO)
    assert status == 200 and messages(body)[-1]["result"]["protocolVersion"] == "2025-11-25"
    session = ("-H", f"Mcp-Session-Id: {headers['mcp-session-id']}", "-H", "MCP-Protocol-Version: 2025-11-25")
    assert curl(url, {"jsonrpc": "2.0", "method": "notifications/initialized"}, *session)[0] == 202
    status, _, body = curl(url, request(1, "tools/call", name="echo", arguments={"text" if name != "npm-http" else "message": "hello"}), *session)
    assert status == 200 and "hello" in body and messages(body)[-1]["id"] == 1
    status, headers, _ = curl(url, None, *session, seconds=1)
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    assert curl(url, None, *session, "-X", "DELETE")[0] in (200, 202, 204)


def test_a_held_result_and_its_collection(gate_for: GateFor) -> None:
    server, gate = gate_for("py2-json-answers", False)
    url = server.url(gate.port)
    name, text = hostile.document()
    server.state.write_document(name, text)
    known = gate.known()
    session = ("-H", f"Mcp-Session-Id: {curl(url, HELLO)[1]['mcp-session-id']}", "-H", "MCP-Protocol-Version: 2025-11-25")
    asked = request(1, "tools/call", name="read_document", arguments={"name": name})
    begun = time.monotonic()
    status, _, claim = curl(url, asked, *session)
    assert status == 200 and messages(claim)[0]["result"]["isError"] and hostile.SECRET not in claim and time.monotonic() - begun < 15
    item = gate.wait_item(known, tool="read_document")
    gate.approve(item)
    status, _, body = curl(url, {**asked, "id": 2}, *session)
    assert status == 200 and hostile.SECRET in body and messages(body)[0]["id"] == 2


def test_the_http_sse_pair_by_hand(gate_for: GateFor) -> None:
    server, gate = gate_for("py2-old-sse", False)
    stream = subprocess.Popen(
        ["curl", "--silent", "--no-buffer", "--max-time", "20", "-H", "Accept: text/event-stream", server.url(gate.port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert stream.stdout is not None
        endpoint = next(line[6:].strip() for line in stream.stdout if line.startswith("data: "))
        url = f"http://127.0.0.1:{gate.port}{endpoint}"
        assert curl(url, {**HELLO, "params": {**HELLO["params"], "protocolVersion": "2024-11-05"}})[0] == 202
        answer = json.loads(next(line[6:] for line in stream.stdout if line.startswith("data: ") and len(line) > 8))
        assert answer["id"] == 0 and answer["result"]["protocolVersion"] == "2024-11-05"
    finally:
        stream.kill()
        stream.communicate()
