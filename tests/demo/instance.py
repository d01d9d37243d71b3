"""The demo's programs: the server, Holdfast before it, and its command line; ended, and their folders removed, however the demo ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.real.process import Program, free_port

HOLDFAST = Path(sys.executable).with_name("holdfast")
READY_S = 30.0


class Unexpected(Exception):
    """Something was not as it must be. `str()` says what."""


@dataclass(slots=True)
class Demo:
    """A context: inside it, a server listens on `server_port`; `guard` puts Holdfast before it; leaving ends and removes everything."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="holdfast-demo-")))
    server_port: int = field(default_factory=free_port)
    server: Program | None = None
    holdfast: Program | None = None

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it behind
        try:
            if self.holdfast is not None:
                self.holdfast.kill(signal.SIGTERM)
            if self.server is not None:
                self.server.kill(signal.SIGTERM)
            shutil.rmtree(self.folder)
        finally:
            signal.signal(signal.SIGINT, before)

    def serve(self) -> None:
        """Start the server. Raises Unexpected where it does not come up."""
        self.server = Program([sys.executable, "-m", "tests.demo.server", str(self.server_port)], self.folder / "server.log")
        try:
            self.server.wait_listening(self.server_port)
        except RuntimeError as error:
            raise Unexpected(str(error)) from None

    def steer(self) -> str | None:
        """`holdfast start` on the server's port. Returns why it cannot work on this machine, or None once it is live."""
        return self._guard("start", "--port", str(self.server_port))

    def proxy(self) -> int:
        """`holdfast proxy` before the server. Returns its port."""
        port = free_port()
        if (why := self._guard("proxy", "--listen", f"127.0.0.1:{port}", "--upstream", f"http://127.0.0.1:{self.server_port}")) is not None:
            raise Unexpected(why)
        return port

    def _guard(self, *words: str) -> str | None:
        log = self.folder / f"{words[0]}.log"
        program = Program([str(HOLDFAST), *words, *self.places], log)
        deadline = time.monotonic() + READY_S
        while '"event": "ready"' not in program.tail():
            if program.process.poll() is not None:
                said = program.tail().strip()
                if program.process.returncode == 1 and "holdfast proxy" in said:  # start's own words where the machine lacks something
                    return said.splitlines()[0].removeprefix("holdfast start: ")
                raise Unexpected(f"holdfast {words[0]} ended with {program.process.returncode}:\n{said}")
            if time.monotonic() > deadline:
                program.kill()
                raise Unexpected(f"holdfast {words[0]} was not ready after {READY_S:.0f} s:\n{program.tail()}")
            time.sleep(0.05)
        self.holdfast = program
        return None

    @property
    def places(self) -> list[str]:
        """The options that keep this instance apart from any other."""
        return ["--state-dir", str(self.folder / "state"), "--runtime-dir", str(self.folder / "run")]

    def type(self, *words: str, columns: int = 100) -> str:
        """Type one command; gives what a colour terminal of that width would show. Raises Unexpected where it fails."""
        shown = {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm-256color"}
        environment = {**{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LINES")}, **shown}
        done = subprocess.run([str(HOLDFAST), *words, *self.places], capture_output=True, text=True, timeout=60, env=environment)
        if done.returncode != 0:
            raise Unexpected(f"holdfast {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def ask(self, *words: str) -> Any:
        """One command with --json."""
        return json.loads(self.type(*words, "--json"))

    def end_holdfast(self) -> int:
        """`holdfast stop`. Returns the exit code of the instance itself."""
        assert self.holdfast is not None
        self.type("stop")
        return self.holdfast.process.wait(timeout=20)
