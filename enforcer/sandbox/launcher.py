"""The forwarder inside a twin whose server speaks HTTP: it starts the server and carries MCP between its own stdio and the server's port.

A twin has no network that the host could reach. This file's text runs in the root's own python3 (3.8 or newer), so it imports only the standard library.
One connection for each message, closed before the next: a connected socket could not be checkpointed.
"""

from __future__ import annotations

import http.client
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator


def forward(port: int, path: str, command: list[str]) -> None:
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    known = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Connection": "close"}
    for line in sys.stdin.buffer:
        message = json.loads(line)
        parameters = message.get("params") or {}
        version = (parameters.get("_meta") or {}).get("io.modelcontextprotocol/protocolVersion")
        own = {"Mcp-Method": message.get("method", "")}
        if version:
            own["MCP-Protocol-Version"] = version
        if isinstance(parameters.get("name"), str):
            own["Mcp-Name"] = parameters["name"].encode("ascii", "ignore").decode()
        connection = connected(port, server)
        connection.request("POST", path, line, {**known, **own})
        response = connection.getresponse()
        session = response.getheader("Mcp-Session-Id")
        if session:
            known["Mcp-Session-Id"] = session
        agreed = answer(response, message)
        if agreed:
            known["MCP-Protocol-Version"] = agreed
        connection.close()


def connected(port: int, server: subprocess.Popen[bytes]) -> http.client.HTTPConnection:
    until = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            connection.connect()
            return connection
        except OSError:
            if time.monotonic() > until or server.poll() is not None:
                raise
            time.sleep(0.02)


def answer(response: http.client.HTTPResponse, message: dict[str, object]) -> str:
    """Pass the answer on, one message a line. Returns the protocol version that it agrees on, "" where it has none."""
    streamed = response.getheader("Content-Type", "").startswith("text/event-stream")
    bodies = events(response) if streamed else iter([response.read()])
    for body in bodies:
        if not body.strip():
            continue
        said = json.loads(body)
        if response.status >= 400 and "error" in said and "id" in message:  # of this request, whether it could be read or not
            said["id"] = message["id"]
            body = json.dumps(said).encode()
        sys.stdout.buffer.write(body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n")
        sys.stdout.buffer.flush()
        if "id" in message and said.get("id") == message["id"]:
            result = said.get("result") or {}
            return str(result.get("protocolVersion") or "") if message.get("method") == "initialize" else ""
    if "id" in message:
        raise SystemExit(f"the server answered HTTP {response.status} and no JSON-RPC")
    return ""


def events(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The data of each event (WHATWG HTML, 9.2.6)."""
    data: list[bytes] = []
    for line in stream:
        text = line.rstrip(b"\r\n")
        if not text:
            if data:
                yield b"\n".join(data)
            data = []
        elif text.startswith(b"data:"):
            data.append(text[5:].lstrip(b" "))


if __name__ == "__main__":
    forward(int(sys.argv[1]), sys.argv[2], sys.argv[3:])

ARGUMENTS = ("-c", inspect.getsource(sys.modules[__name__])) if __name__ != "__main__" else ()
"""The arguments of the python3 that runs this file's text."""
