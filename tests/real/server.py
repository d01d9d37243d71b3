"""The servers by name, and how each is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.process import ROOT, Program, free_port
from tests.real.servers.state import State

HERE = Path(__file__).resolve().parent
NODE = next(iter(sorted(HERE.glob("node_modules/node-linux-*/bin/node"))), HERE / "node_modules/node-is-not-installed")
PYTHON_1X = ROOT / "build" / "venv-mcp1" / "bin" / "python"
EVERYTHING = HERE / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to serve: transport "http" or "sse" (2024-11-05), and the arguments of the program (none: the npm server)."""

    name: str
    transport: str
    python: Path | None
    arguments: tuple[str, ...] = ()


_2X = Path(sys.executable)
KINDS = {
    kind.name: kind
    for kind in (
        Kind("py2-sse-answers", "http", _2X),
        Kind("py2-json-answers", "http", _2X, ("--json",)),
        Kind("py2-stateless", "http", _2X, ("--json", "--stateless")),
        Kind("py2-old-sse", "sse", _2X, ("--serve", "sse")),
        Kind("py1-http", "http", PYTHON_1X),
        Kind("py1-old-sse", "sse", PYTHON_1X, ("--serve", "sse")),
        Kind("npm-http", "http", None),
        Kind("npm-old-sse", "sse", None),
    )
}


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers on `port`."""

    kind: Kind
    port: int
    state: State
    program: Program

    @property
    def path(self) -> str:
        return "/sse" if self.kind.transport == "sse" else "/mcp"

    def url(self, port: int | None = None) -> str:
        """Its endpoint, or the same endpoint on another port (the gate's)."""
        return f"http://127.0.0.1:{port or self.port}{self.path}"


def missing(kind: Kind) -> str | None:
    """Why this server cannot run here, or None."""
    if kind.python is None and not (NODE.exists() and EVERYTHING.exists()):
        return "the npm packages of tests/real are not installed"
    if kind.python == PYTHON_1X and not PYTHON_1X.exists():
        return "build/venv-mcp1 (mcp 1.x) is not installed"
    return None


@contextmanager
def run(kind: Kind, directory: Path) -> Iterator[Running]:
    """Start the server; end it with the block."""
    state = State(directory)
    state.create()
    port = free_port()
    if kind.python is None:
        word = "sse" if kind.transport == "sse" else "streamableHttp"
        program = Program([str(NODE), str(EVERYTHING), word], directory / "output", {"PORT": str(port)})
    else:
        command = [str(kind.python), "-m", "tests.real.servers.program", "--port", str(port), "--state", str(directory), *kind.arguments]
        program = Program(command, directory / "output", {"PYTHONPATH": os.fspath(ROOT)})
    try:
        program.wait_listening(port)
        yield Running(kind, port, state, program)
    finally:
        program.kill()
