"""The clients by name, and one that runs: steps go in, outcomes come out (the language stands in clients/driver.py)."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real.process import ROOT
from tests.real.server import HERE, NODE, PYTHON_1X

ANSWER_S = 60


@dataclass(frozen=True, slots=True)
class Kind:
    """A client: the SDK that speaks, the transport it speaks, and the era (`mode`, Python 2.x only)."""

    name: str
    transport: str
    command: tuple[str, ...]
    mode: str = "auto"


_DRIVER = ("-m", "tests.real.clients.driver")
_2X, _1X = (sys.executable, *_DRIVER), (str(PYTHON_1X), *_DRIVER)
_NPM = (str(NODE), str(HERE / "driver.mjs"))
KINDS = {
    kind.name: kind
    for kind in (
        Kind("py2-modern", "http", _2X),
        Kind("py2-legacy", "http", _2X, "legacy"),
        Kind("py2-old-sse", "sse", _2X, "legacy"),
        Kind("py1-http", "http", _1X),
        Kind("py1-old-sse", "sse", _1X),
        Kind("npm-http", "http", _NPM),
        Kind("npm-old-sse", "sse", _NPM),
    )
}


def missing(kind: Kind) -> str | None:
    """Why this client cannot run here, or None."""
    if not Path(kind.command[0]).exists():
        return f"the client {kind.name} is not installed"
    return None


class Session:
    """A client that is connected. `send` does not wait, `receive` does, `step` is both."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def send(self, **step: Any) -> None:
        self.put(step)

    def put(self, line: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def receive(self, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """The next outcome. Raises TimeoutError when none comes in time."""
        try:
            outcome: dict[str, Any] = json.loads(self._lines.get(timeout=timeout_s))
        except queue.Empty:
            raise TimeoutError(f"the client answered nothing for {timeout_s} s (its status: {self.process.poll()})") from None
        return outcome

    def has_answered(self) -> bool:
        return not self._lines.empty()

    def step(self, **step: Any) -> dict[str, Any]:
        self.send(**step)
        return self.receive()

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return self.step(do="call", name=tool, arguments=arguments)

    def vanish(self) -> None:
        """Die as a crashed host does: no DELETE, no goodbye."""
        self.process.kill()
        self.process.wait(timeout=15)


@contextmanager
def connect(kind: Kind, url: str, headers: dict[str, str] | None = None, *, expect: bool = True) -> Iterator[Session]:
    """Start the client and let it shake hands; close its session with the block.

    expect: whether the handshake must succeed; with False the first `receive()` is its outcome.
    """
    process = subprocess.Popen(
        kind.command, cwd=ROOT, env={**os.environ, "PYTHONPATH": os.fspath(ROOT), "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    session = Session(process)
    try:
        session.put({"url": url, "transport": kind.transport, "mode": kind.mode, "headers": headers or {}})
        if expect:
            opened = session.receive()
            assert opened["ok"], opened
        yield session
        assert process.stdin is not None
        process.stdin.close()
        if process.poll() is None:
            process.wait(timeout=15)
    finally:
        process.kill()
        process.wait(timeout=15)
        session._reader.join(timeout=5)
        assert process.stdout is not None
        process.stdout.close()
