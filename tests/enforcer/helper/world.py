"""Network namespaces, servers and instances of our own: everything the life cycle's tests are played with, and its removal."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
WAIT_S = 15.0
_libc = ctypes.CDLL(None, use_errno=True)


def until(what: Callable[[], T], wait_s: float = WAIT_S) -> T:
    """Poll until `what` is true; its value."""
    give_up_at = time.monotonic() + wait_s
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < give_up_at, "it did not happen in time"
        select.select([], [], [], 0.01)


@dataclass(frozen=True)
class Net:
    """A network namespace made with `ip netns`, its loopback up."""

    name: str

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    @property
    def inode(self) -> int:
        return os.stat(self.path).st_ino

    def run(self, what: Callable[[], T]) -> T:
        """Call in a thread that is inside: what it opens stays there."""
        result: list[T] = []
        failed: list[BaseException] = []

        def body() -> None:
            fd = os.open(self.path, os.O_RDONLY)
            try:
                assert _libc.setns(fd, CLONE_NEWNET) == 0
                result.append(what())
            except BaseException as error:
                failed.append(error)
            finally:
                os.close(fd)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return result[0]

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", "-n", self.name, *words], check=True)

    def sysctl(self, key: str, value: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.name, "sysctl", "-qw", f"{key}={value}"], check=True)

    def connect(self, host: str, port: int, source: tuple[str, int] | None = None, wait_s: float = 5.0) -> socket.socket:
        return self.run(lambda: socket.create_connection((host, port), wait_s, source_address=source))

    def ask(self, host: str, port: int, line: str = "hi") -> list[str]:
        """Send one line; the lines that come back until the end."""
        with self.connect(host, port) as connected:
            connected.sendall(line.encode() + b"\n")
            with connected.makefile(encoding="utf-8") as answers:
                return answers.read().splitlines()

    def refuses(self, host: str, port: int) -> bool:
        try:
            self.connect(host, port).close()
        except ConnectionRefusedError:
            return True
        return False


@contextlib.contextmanager
def net(name: str) -> Iterator[Net]:
    full = f"hf{os.getpid()}{name}"
    subprocess.run(["ip", "netns", "add", full], check=True)
    made = Net(full)
    try:
        made.ip("link", "set", "lo", "up")
        yield made
    finally:
        if Path(made.path).exists():
            subprocess.run(["ip", "netns", "del", full], check=True)


A_IP4, B_IP4, A_IP6, B_IP6 = "10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"


def join(a: Net, b: Net) -> None:
    """A veth pair between two namespaces, with the four addresses above."""
    a.ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", b.name)
    for side, ip4, ip6 in ((a, A_IP4, A_IP6), (b, B_IP4, B_IP6)):
        side.ip("addr", "add", f"{ip4}/24", "dev", "veth0")
        side.ip("addr", "add", f"{ip6}/64", "dev", "veth0", "nodad")
        side.ip("link", "set", "veth0", "up")
    until(lambda: all("LOWER_UP" in _output("ip", "-n", side.name, "link", "show", "veth0") for side in (a, b)))


def _output(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class Server:
    """The guarded server: answers `server <peer address> <peer port> <line>`; a line `stay` keeps the connection until it is closed."""

    def __init__(self, inside: Net, port: int, host: str = "::") -> None:
        self.accepted = 0
        self._listener = inside.run(lambda: self._listen(host, port))
        self.port: int = self._listener.getsockname()[1]
        self._closed = False
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @staticmethod
    def _listen(host: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, dualstack_ipv6=host == "::", backlog=128)

    def _serve(self) -> None:
        while True:
            try:
                connected, peer = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._answer, args=(connected, peer), daemon=True).start()

    def _answer(self, connected: socket.socket, peer: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            line = connected.makefile("rb").readline().decode().strip()
            connected.sendall(f"server {peer[0].removeprefix('::ffff:')} {peer[1]} {line}\n".encode() if line != "stay" else b"stay\n")
            if line == "stay":
                self._held.append(connected)
                return
        connected.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connected in self._held:
            connected.close()
        self._thread.join(5)


class Instance:
    """`holdfast start` with the daemon of echo.py."""

    def __init__(self, port: int, netns: str, folder: Path, policy: str = "", extra: tuple[str, ...] = (), env: dict[str, str] | None = None) -> None:
        self.port = port
        self.runtime_dir, self.state_dir = folder / "run", folder / "state"
        self._errors = open(folder / "stderr", "a+", encoding="utf-8")  # noqa: SIM115  # the process's, until close
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.enforcer.helper.echo", "--port", str(port), "--netns", netns, "--state-dir", str(self.state_dir),
             "--runtime-dir", str(self.runtime_dir), "--policy", policy, *extra],
            stdout=subprocess.PIPE, stderr=self._errors, text=True, env=None if env is None else os.environ | env,
        )  # fmt: skip
        self.ready: dict[str, object] = {}

    def wait_ready(self) -> Instance:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], WAIT_S)[0], f"not ready: {self.errors()}"
        line = self.process.stdout.readline()
        assert line, f"it ended: {self.errors()}"
        self.ready = json.loads(line)
        return self

    @property
    def pid(self) -> int:
        return self.process.pid

    def daemon(self) -> int:
        """The pid of the daemon; 0 while there is none."""
        return next(iter(self.children("holdfast-daemon")), 0)

    def workers(self) -> list[int]:
        return self.children("holdfast-worker")

    def children(self, name: str) -> list[int]:
        found = []
        for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == name:
                    found.append(int(child))
        return found

    def errors(self) -> str:
        return Path(self._errors.name).read_text(encoding="utf-8")

    def control(self, line: str) -> dict[str, object]:
        """Ask the daemon (see echo.py)."""
        with socket.socket(socket.AF_UNIX) as connected:
            connected.settimeout(WAIT_S)
            connected.connect(str(self.runtime_dir / "control.sock"))
            connected.sendall(line.encode() + b"\n")
            answer = connected.makefile(encoding="utf-8").read()
            said: dict[str, object] = json.loads(answer) if answer else {}
            return said

    def facts(self) -> list[str]:
        facts = self.control("facts")["facts"]
        assert isinstance(facts, list)
        return facts

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.end()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
