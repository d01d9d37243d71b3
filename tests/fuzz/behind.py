"""A real gate between a raw client and a real HTTP server, and what each of the two wrote down: what was judged, and what was seen."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.evidence.files import folder_of
from tests.real import gate as gates
from tests.real.gate import POLICY, Gate
from tests.real.process import ROOT, Program, free_port
from tests.real.server import NODE

HERE = Path(__file__).parent
LIMIT_S = 15.0
SERVERS = ("uvicorn-httptools", "uvicorn-h11", "node")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as the server read it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(slots=True)
class Behind:
    """file: where the server writes. _read, _judged: how much of both sides was looked at before."""

    gate: Gate
    file: Path
    _read: int = 0
    _judged: int = field(default=0)

    def say(self, *pieces: bytes) -> bytes:
        """Send, say that no more comes, and read to the end."""
        got = b""
        with socket.create_connection(("127.0.0.1", self.gate.port), LIMIT_S) as client:
            with contextlib.suppress(OSError):  # it may be refused before the last byte is sent
                for piece in pieces:
                    client.sendall(piece)
                client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while data := client.recv(65536):
                    got += data
        return got

    def ask(self, raw: bytes, answers: int) -> bytes:
        """Send, stay, and read until so many answers of the server's came, or one of the gate's own ended the connection."""
        got = b""
        with socket.create_connection(("127.0.0.1", self.gate.port), LIMIT_S) as client:
            client.sendall(raw)
            while got.count(b'"done"') < answers and (data := client.recv(65536)):
                got += data
        return got

    def seen(self) -> list[Seen]:
        """What the server saw since the last time."""
        lines = self.file.read_bytes().splitlines() if self.file.exists() else []
        new, self._read = lines[self._read :], len(lines)
        values = [json.loads(line) for line in new]
        return [Seen(v["method"], v["target"], tuple((name, value) for name, value in v["headers"]), v["body"].encode("latin-1")) for v in values]

    def judged(self) -> list[bytes]:
        """The bodies that the gate judged and let go on to the server since the last time, by its evidence."""
        found = []
        for segment in sorted(folder_of(self.gate.directory / "state").glob("entries-*")):
            for line in segment.read_bytes().splitlines()[1:]:
                entry = json.loads(line.partition(b" ")[2])
                if entry["event"] == "judged" and entry["direction"] == "to-server" and entry["ruling"] == "release":
                    found.append(base64.b64decode(entry["content"]))
        new, self._judged = found[self._judged :], len(found)
        return new


@contextlib.contextmanager
def behind(name: str, folder: Path) -> Iterator[Behind]:
    """A server by name, with a gate in front."""
    port, file = free_port(), folder / "seen"
    if name == "node":
        command = [str(NODE), str(HERE / "servers" / "plain.mjs"), str(port), str(file)]
    else:
        command = [sys.executable, "-m", "tests.fuzz.servers.asgi", str(port), str(file), name.partition("-")[2]]
    server = Program(command, folder / "output", {"PYTHONPATH": os.fspath(ROOT)})
    try:
        server.wait_listening(port)
        policy = POLICY + "workers = 1\n[evidence]\ncontent = true\n[bounds]\nrequest_bytes = 65536\nhead_s = 2\n"
        with gates.run(folder, port, policy=policy) as gate:
            yield Behind(gate, file)
    finally:
        server.kill()
