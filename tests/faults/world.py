"""A server whose runs are counted, raw clients, the processes of an instance by their role, and questions to its daemon."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.faults.upstream import CLEAN
from tests.real.gate import POLICY, Gate
from tests.real.hostile import SECRET
from tests.real.process import ROOT, Program, free_port

T = TypeVar("T")
LIMIT_S = 15.0
"""Nothing here may take longer, on a machine where others work too."""

ONE_WORKER = POLICY.replace("claim_after_s = 1", "claim_after_s = 0.3") + 'workers = 1\n[[rule]]\ntools = ["patient"]\nclaim_after_s = 60\n'
"""Who waits for a held result has a claim soon, but for the tool `patient`, which is waited for until somebody decides."""

ROLES = {
    "worker": re.compile(r"enforcer\.scanner\.worker|holdfast-worker"),
    "window": re.compile(r"enforcer\.helper\.window|holdfast-window"),
    "jury": re.compile(r"enforcer\.jury\.member|holdfast-jury"),
    "daemon": re.compile(r"holdfast-daemon"),
}


def until(what: Callable[[], T], why: str, limit_s: float = LIMIT_S) -> T:
    """Poll until `what` is true; its value."""
    give_up_at = time.monotonic() + limit_s
    while not (value := what()):
        assert time.monotonic() < give_up_at, why
        select.select([], [], [], 0.01)
    return value


class Upstream:
    """The server of `tests.faults.upstream`, killed and started again at will."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.port = folder, free_port()
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.faults.upstream", str(self.port), str(self.folder)]
        self._program = Program(command, self.folder / "output", {"PYTHONPATH": os.fspath(ROOT)})
        self._program.wait_listening(self.port)

    def kill(self) -> None:
        self._program.kill()

    def _lines(self, name: str, key: str) -> int:
        path = self.folder / name
        return sum(key == line.rpartition(" ")[2] for line in path.read_text().splitlines()) if path.exists() else 0

    def runs(self, key: str) -> int:
        """How often a call with this key ran."""
        return self._lines("runs", key)

    def said(self, key: str) -> int:
        return self._lines("said", key)

    def halves(self, key: str) -> int:
        return self._lines("halves", key)

    def go(self) -> None:
        (self.folder / "go").touch()

    def stay(self) -> None:
        (self.folder / "go").unlink(missing_ok=True)


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[Upstream]:
    server = Upstream(folder)
    try:
        yield server
    finally:
        server.kill()


def request(tool: str, call_id: int = 1, **arguments: Any) -> bytes:
    """A tools/call as bytes."""
    body = json.dumps({"jsonrpc": "2.0", "id": call_id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}).encode()
    return b"POST /mcp HTTP/1.1\r\nHost: gate\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class Client:
    """A raw connection to a gate. `got`: every byte that came."""

    def __init__(self, port: int, receive_bytes: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(LIMIT_S)
        self.sock.connect(("127.0.0.1", port))
        self.got = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> Client:
        self.sock.sendall(data)
        return self

    def answer(self) -> bytes:
        """The body of the next answer, or what came until the connection ended. Raises TimeoutError where neither came."""
        self.got = b""
        while not (whole := self._whole()):
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionError:
                return self.got
            if not data:
                return self.got
            self.got += data
        return whole

    def _whole(self) -> bytes | None:
        head, end, body = self.got.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        return body if end and length is not None and len(body) >= int(length[1]) else None

    def close(self) -> None:
        self.sock.close()


def ask_once(port: int, tool: str, **arguments: Any) -> bytes:
    """One call on a connection of its own; the answer's body."""
    with Client(port) as client:
        return client.send(request(tool, **arguments)).answer()


def assert_served(port: int) -> None:
    """An honest client is served, within bounds."""
    answer = ask_once(port, "clean")
    assert CLEAN.encode() in answer, answer


@dataclass(frozen=True, slots=True)
class Refused:
    text: str


def control(gate: Gate, op: str, **arguments: Any) -> Any:
    """Put one question to the daemon, as the CLI does, without a second's start of an interpreter."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(LIMIT_S)
        sock.connect(str(gate.directory / "run" / "control.sock"))
        sock.sendall(json.dumps({"op": op, **arguments}).encode() + b"\n")
        answer = json.loads(sock.makefile("rb").readline())
    return Refused(answer["refused"]) if "refused" in answer else answer["value"]


def items(gate: Gate) -> dict[str, dict[str, Any]]:
    """All items by their ids."""
    return {item["id"]: item for item in control(gate, "escrow.ls")}


def new_item(gate: Gate, known: set[str]) -> dict[str, Any]:
    return until(lambda: [item for item in items(gate).values() if item["id"] not in known], "nothing was held")[0]


def approve(gate: Gate, item: dict[str, Any]) -> Any:
    return control(gate, "escrow.approve", id=item["id"], why="a test approves", result_sha256=item["result_sha256"])


def processes(gate: Gate, role: str) -> list[int]:
    """The living processes of an instance by role; `daemon` of a proxy, and `helper`, are the program itself."""
    top = gate.program.process.pid
    found = [pid for pid in _descendants(top) if ROLES[role].search(_called(pid))] if role in ROLES else [top]
    return found or ([top] if role == "daemon" else [])


def children(gate: Gate) -> list[int]:
    """Every process that the instance started and that lives."""
    return _descendants(gate.program.process.pid)


def lives(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has waited for does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _descendants(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [*children, *(one for child in children for one in _descendants(child))]
    return []


def _called(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text() + Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def leaked(*seen: bytes) -> bool:
    return any(SECRET.encode() in one for one in seen)
