"""One child program under test: started, waited for with a bound, ended, its output kept for the failure message."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READY_S = 30


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on at this moment."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


class Program:
    """A running program in a process group of its own; `output` is a file with its stdout and stderr."""

    def __init__(self, command: list[str], output: Path, environment: Mapping[str, str] | None = None) -> None:
        self.command = command
        self.output = output
        with output.open("ab") as sink:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                env={**os.environ, **(environment or {})}, start_new_session=True,
            )  # fmt: skip

    def wait_listening(self, port: int, host: str = "127.0.0.1") -> None:
        """Return once something accepts on the port. Raises RuntimeError, with the output, when it does not in time."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.command[0]} ended with {self.process.returncode}:\n{self.tail()}")
            try:
                socket.create_connection((host, port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"{self.command[0]} does not listen on {port} after {READY_S} s:\n{self.tail()}")

    def tail(self) -> str:
        """The last of what the program printed."""
        return self.output.read_text(errors="replace")[-4000:]

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the whole group and reap it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, how)
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=15)
