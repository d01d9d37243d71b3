"""A gate whose second judge works: a real MCP server over HTTP, its twin under gVisor, and a client that says what it means, line by line."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.real import gate
from tests.real.process import ROOT, Program, free_port

SERVER = ROOT / "tests" / "enforcer" / "sandbox" / "server.py"
FILLED_S = 90
ERA = "2025-11-25"

POLICY = """
[escrow]
claim_after_s = 20

[scanner]
unsure_at = 1
hostile_at = 1

[judging]
judges = ["scanner", "sandbox"]
require = ["scanner", "sandbox"]
class = "irreversible"
when = "alongside"

[server]
name = "files"

[servers.files.sandbox]
command = COMMAND
environment = { PYTHONPATH = "ROOT" }
pool = 1
hidden = ["/run"]
snapshot_ms = 5000
run_ms = 20000
"""


@dataclass(slots=True)
class Client:
    """One session with the gate, of the 2025-11-25 era."""

    port: int
    session: str = ""
    _next: int = 0
    _known: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"})

    def begin(self) -> None:
        self.ask("initialize", protocolVersion=ERA, capabilities={}, clientInfo={"name": "test", "version": "1"})
        self._known["MCP-Protocol-Version"] = ERA
        self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, tool: str, **arguments: object) -> dict[str, Any]:
        """The answer to one call, whole: `result`, or what Holdfast says instead."""
        return self.ask("tools/call", name=tool, arguments=arguments)

    def ask(self, method: str, **params: object) -> dict[str, Any]:
        self._next += 1
        return self._post({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params})

    def _post(self, message: dict[str, object]) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/mcp", json.dumps(message), self._known)
            response = connection.getresponse()
            if session := response.getheader("Mcp-Session-Id"):
                self._known["Mcp-Session-Id"] = self.session = session
            body = response.read()
            if response.getheader("Content-Type", "").startswith("text/event-stream"):
                body = body.rpartition(b"data: ")[2]
            said: dict[str, Any] = json.loads(body) if body.strip() else {}
            return said
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class World:
    """folder: this test's own. data: the real state, which the twin sees at the same place."""

    folder: Path
    data: Path
    gate: gate.Gate
    client: Client

    def status(self) -> list[dict[str, Any]]:
        """What the keeper says of each server's twins."""
        found: list[dict[str, Any]] = json.loads(self.gate.holdfast("status", "--json"))["sandbox"]["servers"]
        return found

    def filled(self) -> None:
        """Wait until its template is built: the first call fills the pool."""
        self.settle(lambda: any(each["template"] for each in self.status() if each["era"] == ERA), "no template")

    def settle(self, done: Callable[[], bool], else_: str) -> None:
        """Wait until something is so."""
        until = time.monotonic() + FILLED_S
        while not done():
            assert time.monotonic() < until, f"{else_}: {self.status()}\n{self.gate.program.tail()}"
            time.sleep(0.2)


@contextmanager
def world(
    state: str = "", sandbox: str = "", more: str = "", arguments: tuple[str, ...] = (), prepare: Callable[[Path], None] = lambda data: None
) -> Iterator[World]:
    """state: the policy's tables of it; by default the directory `data`. sandbox: further keys of the twin's table. more: further tables.

    arguments: of the server, in both places. DATA in the policy's texts is `data`. prepare: makes further state.
    """
    with TemporaryDirectory(prefix="holdfast-live-", dir="/var/tmp") as name:
        folder = Path(name)
        data = folder / "shown" / "data"
        data.mkdir(parents=True)
        (data / "notes.txt").write_text("as it was")
        prepare(data)
        port = free_port()
        server = Program([sys.executable, str(SERVER), "--http", str(port), "json", *arguments], folder / "server.log", {"PYTHONPATH": str(ROOT)})
        try:
            server.wait_listening(port)
            command = json.dumps([sys.executable, str(SERVER), "--stdio", "0", "json", *arguments])
            state = state or f'[[servers.files.sandbox.state]]\nkind = "directory"\npath = "{data}"\n'
            text = "\n".join((POLICY.replace("COMMAND", command).replace("ROOT", str(ROOT)) + sandbox, state, more)).replace("DATA", str(data))
            with gate.run(folder, port, policy=text) as running:
                made = World(folder, data, running, Client(running.port))
                made.filled()
                made.client.begin()
                yield made
        finally:
            server.kill()
