"""What is compared: nothing, HAProxy, mitmproxy and Holdfast (as a proxy and steered), each in front of the same fast upstream."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.process import ROOT, Program, free_port

BUILD = ROOT / "build"
SMALL_BYTES, BIG_BYTES = 100, 1 << 20
HOLDFAST = Path(sys.executable).with_name("holdfast")
READY_S = 60


@dataclass(frozen=True, slots=True)
class Contender:
    """Somewhere to send the load. process: the relay's, with all its descendants; None where there is no relay. server: the upstream's."""

    name: str
    port: int
    process: int | None
    server: int


def compile_c(name: str) -> Path:
    """Compile tests/bench/NAME.c where it is newer than build/NAME."""
    source, binary = Path(__file__).with_name(f"{name}.c"), BUILD / name
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(exist_ok=True)
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(binary), str(source)], check=True)
    return binary


def descendants(process: int) -> list[int]:
    """The process and everything below it."""
    found, at = [process], 0
    while at < len(found):
        for task in Path(f"/proc/{found[at]}/task").glob("*/children"):
            found.extend(int(child) for child in task.read_text().split())
        at += 1
    return found


def cpu_seconds(process: int) -> float:
    """User and system time of the process and its living descendants (proc(5), /proc/PID/stat fields 14 and 15)."""
    ticks = 0
    for one in descendants(process):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def upstream(directory: Path) -> Iterator[tuple[int, int]]:
    """The C server; gives its port and process."""
    port = free_port()
    program = Program([str(compile_c("upstream")), str(port), str(SMALL_BYTES), str(BIG_BYTES)], directory / f"upstream-{port}")
    try:
        program.wait_listening(port)
        yield port, program.process.pid
    finally:
        program.kill()


@contextmanager
def _relay(name: str, command: list[str], port: int, server: int, directory: Path) -> Iterator[Contender]:
    program = Program(command, directory / name)
    try:
        program.wait_listening(port)
        yield Contender(name, port, program.process.pid, server)
    finally:
        program.kill()


def _haproxy(target: int, directory: Path) -> tuple[list[str], int]:
    port, settings = free_port(), directory / "haproxy.cfg"
    settings.write_text(
        f"global\n  nbthread 1\ndefaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n  timeout connect 5s\n"
        f"  http-reuse always\nlisten relay\n  bind 127.0.0.1:{port}\n  server upstream 127.0.0.1:{target}\n"
    )
    return ["haproxy", "-q", "-f", str(settings)], port


def _mitmproxy(target: int, directory: Path) -> tuple[list[str], int]:
    port = free_port()
    command = [str(BUILD / "venv-mitm" / "bin" / "mitmdump"), "-q", "--mode", f"reverse:http://127.0.0.1:{target}"]
    return [*command, "--listen-host", "127.0.0.1", "--listen-port", str(port), "--set", f"confdir={directory / 'mitm'}"], port


def call(call_id: int) -> bytes:
    """A small tools/call that no other is the retry of."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    params = {"name": "echo", "arguments": {"n": call_id}, "_meta": meta}
    return json.dumps({"jsonrpc": "2.0", "id": call_id, "method": "tools/call", "params": params}, separators=(",", ":")).encode()


def _until_released(port: int, path: str) -> None:
    """Ask until the answer comes through: until then the scanner's model is not loaded, or has not seen this text yet."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)) as connection:
            connection.request("POST", path, call(time.monotonic_ns() // 1000), {"content-type": "application/json", "mcp-protocol-version": "2026-07-28"})
            if b'"isError":false' in connection.getresponse().read():
                return
        time.sleep(0.1)
    raise RuntimeError(f"holdfast releases no answer on {path}")


@contextmanager
def holdfast(name: str, arguments: list[str], port: int, server: int, directory: Path, warm: tuple[str, ...] = ("/mcp", "/big")) -> Iterator[Contender]:
    """A Holdfast that has seen what the upstream answers at these paths."""
    own = directory / name
    own.mkdir()
    command = [str(HOLDFAST), *arguments, "--state-dir", str(own / "state"), "--runtime-dir", str(own / "run")]
    program = Program(command, own / "output")
    try:
        deadline = time.monotonic() + READY_S
        while not any(_is_ready(line) for line in program.tail().splitlines()):
            if program.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"holdfast did not become ready:\n{program.tail()}")
            time.sleep(0.05)
        for path in warm:
            _until_released(port, path)
        yield Contender(name, port, program.process.pid, server)
    finally:
        program.process.terminate()
        try:
            program.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            program.kill()


def _is_ready(line: str) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("event") == "ready"


@contextmanager
def contenders(directory: Path) -> Iterator[list[Contender]]:
    """Start all that this machine can run. What is missing raises: a comparison without one side is none."""
    for needed, where in (("haproxy", shutil.which("haproxy")), ("mitmproxy", BUILD / "venv-mitm" / "bin" / "mitmdump"), ("holdfast", HOLDFAST)):
        if where is None or not Path(where).exists():
            raise RuntimeError(f"{needed} is not installed: run `make bench`, which installs it")
    with ExitStack() as stack:
        target, server = stack.enter_context(upstream(directory))
        started = [Contender("direct", target, None, server)]
        for name, make in (("haproxy", _haproxy), ("mitmproxy", _mitmproxy)):
            command, port = make(target, directory)
            started.append(stack.enter_context(_relay(name, command, port, server, directory)))
        port = free_port()
        proxy = ["proxy", "--listen", f"127.0.0.1:{port}", "--upstream", f"http://127.0.0.1:{target}"]
        started.append(stack.enter_context(holdfast("holdfast", proxy, port, server, directory)))
        if os.geteuid() == 0:
            steered, server = stack.enter_context(upstream(directory))
            started.append(stack.enter_context(holdfast("holdfast-steered", ["start", "--port", str(steered)], steered, server, directory)))
        yield started
