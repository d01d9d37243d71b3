"""Holdfast as a user starts it, and its CLI as a user types it: nothing here reaches into the code under test."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real.process import ROOT, Program, free_port

HOLDFAST = Path(sys.executable).with_name("holdfast")
READY_S = 60
WAIT_S = 20

POLICY = """
[escrow]
claim_after_s = 1

[scanner]
unsure_at = 1
hostile_at = 1
"""
"""Claims come soon, and the rules alone decide: these tests are about the gate, so what is hostile here must not depend on a classifier's
thresholds, which have tests and a benchmark of their own."""


@dataclass(slots=True)
class Gate:
    """A Holdfast in front of `target_port`. Clients connect to `port`; when it steers, that is the server's own."""

    directory: Path
    arguments: list[str]
    port: int
    program: Program

    def holdfast(self, *words: str, check: bool = True) -> str:
        """Type one command. Raises AssertionError when it fails."""
        done = subprocess.run(
            [str(HOLDFAST), *words, *_directories(self.directory)], cwd=ROOT, capture_output=True, text=True, timeout=60
        )  # fmt: skip
        assert not check or done.returncode == 0, f"holdfast {' '.join(words)} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def items(self, **members: Any) -> list[dict[str, Any]]:
        """What `escrow ls --json` shows, with these members."""
        listed: list[dict[str, Any]] = json.loads(self.holdfast("escrow", "ls", "--json"))
        return [item for item in listed if members.items() <= item.items()]

    def wait_item(self, known: set[str], **members: Any) -> dict[str, Any]:
        """The first item with these members that is not among the known ids."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            for item in self.items(**members):
                if item["id"] not in known:
                    return item
            time.sleep(0.1)
        raise AssertionError(f"no new item with {members}; there are {self.items()}\n{self.program.tail()}")

    def known(self) -> set[str]:
        return {item["id"] for item in self.items()}

    def approve(self, item: dict[str, Any]) -> None:
        self.holdfast("escrow", "approve", item["id"], "-m", "a test approves")

    def deny(self, item: dict[str, Any]) -> None:
        self.holdfast("escrow", "deny", item["id"], "-m", "a test denies")

    def crash(self) -> None:
        """kill -9, of everything this gate started."""
        self.program.kill(signal.SIGKILL)

    def start_again(self) -> None:
        self.program = _start(self.directory, self.arguments)


def _directories(directory: Path) -> list[str]:
    return ["--state-dir", str(directory / "state"), "--runtime-dir", str(directory / "run")]


def _is_ready(line: str) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("event") == "ready"


def _start(directory: Path, arguments: list[str]) -> Program:
    output = directory / f"output-{time.monotonic_ns()}"
    program = Program([str(HOLDFAST), *arguments, *_directories(directory)], output)
    deadline = time.monotonic() + READY_S
    while not any(_is_ready(line) for line in output.read_text(errors="replace").splitlines()):
        if program.process.poll() is not None or time.monotonic() > deadline:
            program.kill()
            raise RuntimeError(f"holdfast {' '.join(arguments)} did not become ready:\n{program.tail()}")
        time.sleep(0.05)
    return program


def missing() -> str | None:
    """Why no gate can run here, or None."""
    return None if HOLDFAST.exists() else "the holdfast command is not installed"


@contextmanager
def run(
    directory: Path, target_port: int, *, steer: bool = False, policy: str = POLICY, mcp_listen: str = "none", more: tuple[str, ...] = ()
) -> Iterator[Gate]:
    """Put a gate in front of a port of this machine; `steer` needs root. mcp_listen: where supervisors find its window. more: options."""
    (directory / "policy.toml").write_text(policy)
    port = target_port if steer else free_port()
    where = ["start", "--port", str(port)] if steer else ["proxy", "--listen", f"127.0.0.1:{port}", "--upstream", f"http://127.0.0.1:{target_port}"]
    arguments = [*where, "--policy", str(directory / "policy.toml"), "--mcp-listen", mcp_listen, *more]
    gate = Gate(directory, arguments, port, _start(directory, arguments))
    try:
        yield gate
    finally:
        gate.program.process.send_signal(signal.SIGTERM)
        try:
            gate.program.process.wait(timeout=20)
        finally:
            gate.program.kill()
