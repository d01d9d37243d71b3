"""What the taps cost and how much they can take: `run()` gives figures for build/bench.json.

A TLS and a plain server, untouched, with our taps (whole payloads copied and decoded), and with Debian's sslsniff-bpfcc (the peer: prints the
first bytes of SSL_read and SSL_write), in turn and several times over, so that the machine's moods fall on all alike. Two servers: nginx with a
small page, where a call's cost shows most, and an MCP-like one in Python (uvicorn), which is what a tool server really is. wrk asks both.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from enforcer.kernel import attach
from enforcer.taps import bcc, elf, loading, processes
from enforcer.taps.reader import POLL_S
from enforcer.taps.watch import Scope
from tests.bench.figure import Figure, figure
from tests.bpf import openssl
from tests.bpf.taprig import PORT, both, cable, ip4, namespace, tcp, wire

ROUNDS = 3
ROUND_S = 2
CONNECTIONS = 8
SMALL_RECORDS = 150_000
APP = """
import json, sys
import uvicorn
RESULT = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "A line of what the tool found. " * 60}], "isError": False}}
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = json.dumps(RESULT).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
tls = {"ssl_certfile": sys.argv[2], "ssl_keyfile": sys.argv[3]} if len(sys.argv) > 2 else {}
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", **tls)
"""
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class CannotRun(Exception):
    """What the bench lacks."""


def _ask(url: str) -> tuple[float, float]:
    """Requests a second and median latency in milliseconds."""
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{ROUND_S}s", "--latency", url]
    said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=ROUND_S + 20).stdout
    rate, median = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
    if rate is None or median is None or "Non-2xx" in said:
        raise CannotRun(f"wrk said: {said}")
    return float(rate[1]), float(median[1]) * _UNITS[median[2]]


@contextmanager
def _serving(*command: str) -> Iterator[None]:
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while not any(line.split()[1].endswith(f":{PORT:04X}") for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]):
            if time.monotonic() > end or server.poll() is not None:
                raise CannotRun(f"{command[0]} does not serve")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def _ours(report: dict[str, float]) -> Iterator[None]:
    """Our taps, their rings drained and decoded by a process of its own, as the daemon does."""
    scope = Scope(netns=os.stat("/proc/thread-self/ns/net").st_ino)
    told, tell = os.pipe()
    with both(scope, ring_bytes=64 << 20) as (_tap, _tls, drained):
        stop, end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                events = 0
                while not select.select([stop], [], [], POLL_S)[0]:
                    more = True
                    while more:
                        found, more = drained.reader.read(time.monotonic_ns())
                        events += len(found)
                counts = drained.reader.counts()
                lost = sum(records for each in counts.values() for records, _bytes in each.lost.values())
                used = resource.getrusage(resource.RUSAGE_SELF)
                captured = sum(each.captured_bytes for each in counts.values())
                os.write(tell, json.dumps({"events": events, "lost": lost, "cpu_s": used.ru_utime + used.ru_stime, "bytes": captured}).encode())
                os._exit(0)
            finally:
                os._exit(1)
        try:
            yield
        finally:
            os.write(end, b".")
            said = json.loads(os.read(told, 4096))
            os.waitpid(child, 0)
            for fd in (told, tell, stop, end):
                os.close(fd)
            for name, value in said.items():
                report[name] = report.get(name, 0.0) + value


@contextmanager
def _sslsniff() -> Iterator[None]:
    """The peer, compiled against the oldest headers there are: it uses the kernel's own, and newer ones are beyond its compiler."""
    program = shutil.which("sslsniff-bpfcc")
    trees = sorted(Path("/usr/src").glob("linux-headers-*-amd64"))
    if program is None or not trees:
        raise CannotRun("sslsniff-bpfcc or kernel headers are missing (apt install bpfcc-tools linux-headers-amd64)")
    own = Path("/lib/modules", os.uname().release, "build").is_dir()
    peer = drain = None
    try:
        with nullcontext() if own else bcc._whole(trees[0]):
            environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
            # Its `min` is the kernel's, which newer headers made too clever for BPF; any compiler knows the plain one.
            text = (
                Path(program)
                .read_text("utf-8")
                .replace("#include <linux/sched.h>", "#include <linux/sched.h>\n#undef min\n#define min(x, y) ((x) < (y) ? (x) : (y))", 1)
            )
            peer = subprocess.Popen(
                ["/usr/bin/python3", "-c", text], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
            assert peer.stdout is not None
            if not select.select([peer.stdout], [], [], 30)[0] or not os.read(peer.stdout.fileno(), 1):
                raise CannotRun("sslsniff-bpfcc does not start")
        drain = subprocess.Popen(["cat"], stdin=peer.stdout, stdout=subprocess.DEVNULL)
        yield
    finally:
        if peer is not None and peer.stdout is not None:
            peer.terminate()
            peer.wait(10)
            peer.stdout.close()
        if drain is not None:
            drain.wait(10)


Way = Callable[[], AbstractContextManager[None]]


def _compare(name: str, url: str, ways: dict[str, Way]) -> dict[str, tuple[float, float]]:
    """Median rate and latency of each way, taken in turn; a way that comes and goes attaches and detaches under the next's load."""
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, around in ways.items():
            with around():
                if way == "sslsniff":
                    _ask(url)  # its first lines
                found[way].append(_ask(url))
    return {way: (statistics.median(rate for rate, _p50 in each), statistics.median(p50 for _rate, p50 in each)) for way, each in found.items()}


def _figures(name: str, measured: dict[str, tuple[float, float]]) -> list[Figure]:
    rate, p50 = measured["untouched"]
    figures = [figure(f"taps.{name}.rate_untouched", rate, "req/s"), figure(f"taps.{name}.p50_untouched", p50, "ms")]
    costs = {}
    for way in [each for each in measured if each != "untouched"]:
        lost = (1 - measured[way][0] / rate) * 100
        costs[way] = (1 / measured[way][0] - 1 / rate) * 1e6
        goal = 2.0 if name.startswith("mcp") else None
        figures.append(figure(f"taps.{name}.rate_lost.{way}", lost, "%", at_most=goal if way == "ours" else None))
        figures.append(figure(f"taps.{name}.p50_added.{way}", measured[way][1] - p50, "ms"))
    if "sslsniff" in costs:
        figures.append(figure(f"taps.{name}.cost_per_request.sslsniff", costs["sslsniff"], "us"))
        figures.append(figure(f"taps.{name}.cost_per_request.ours", costs["ours"], "us", at_most=costs["sslsniff"]))
    return figures


def _trap() -> list[Figure]:
    """What one probe costs on this machine whatever it does: on hardware below 1 us, in a nested virtual machine tens."""
    loaded = loading.load("tls")
    libc = next(each for each in processes.mappings(os.getpid()) if os.path.basename(each.path).startswith("libc.so"))
    file = processes.open_mapped(libc)
    assert file is not None
    offset = elf.functions(lambda at, size: os.pread(file, size, at), ["getppid"])["getppid"]
    function = ctypes.CDLL(None).getppid

    def call() -> float:
        begun = time.perf_counter()
        for _ in range(5000):
            function()
        return (time.perf_counter() - begun) / 5000 * 1e6

    before = call()
    link = attach.uprobe(loaded.programs["ssl_read_done"], file, offset, False, loaded.multi, os.getpid())
    cost = call() - before
    for fd in (link, file):
        os.close(fd)
    loaded.close()
    return [figure("taps.trap", cost, "us")]


def _decoding() -> list[Figure]:
    """Small records, from the ring to events, on one core."""
    with wire(ring_bytes=128 << 20) as (_tap, drained), cable() as send:
        packets = [ip4(tcp(b"{}" * 100, sequence=number * 200)) for number in range(100)]
        for number in range(SMALL_RECORDS):
            send(packets[number % 100], 0x0800)
        begun, used, more, events = time.perf_counter(), time.process_time(), True, 0
        while more:
            found, more = drained.reader.read(time.monotonic_ns())
            events += len(found)
        rate = events / (time.process_time() - used)
        elapsed = events / (time.perf_counter() - begun)
        return [
            figure("taps.decode.records", rate, "1/s of one core", at_least=500_000),
            figure("taps.decode.records_elapsed", elapsed, "1/s"),
            figure("taps.decode.lost", SMALL_RECORDS - events, "records", at_most=0),
        ]


def run() -> list[Figure]:
    """Needs root, wrk, nginx-light, bpfcc-tools and kernel headers. Raises CannotRun."""
    for program in ("wrk", "nginx"):
        if shutil.which(program) is None:
            raise CannotRun(f"{program} is missing (apt install {'nginx-light' if program == 'nginx' else program})")
    report: dict[str, float] = {}
    figures: list[Figure] = []
    ways: dict[str, Way] = {"untouched": nullcontext, "ours": lambda: _ours(report)}
    with namespace(), tempfile.TemporaryDirectory(prefix="holdfast-bench-") as made:
        folder = Path(made)
        os.chmod(folder, 0o755)
        cert, key = map(str, openssl.certificate(folder))
        app = folder / "app.py"
        app.write_text(APP)
        for name, tls in (("mcp_tls", [cert, key]), ("mcp_plain", [])):
            with _serving(sys.executable, str(app), str(PORT), *tls):
                figures += _figures(name, _compare(name, f"http{'s' if tls else ''}://127.0.0.1:{PORT}/mcp", ways))
        figures.append(figure("taps.realistic.lost", report["lost"], "records", at_most=0))
        (folder / "page").write_bytes(b"x" * 2000)
        (folder / "conf").write_text(
            f"daemon off; user root; worker_processes 1; pid {folder}/pid; error_log /dev/null; events {{}} http {{ access_log off; keepalive_requests 1000000;"
            f" server {{ listen 127.0.0.1:{PORT} ssl; ssl_certificate {cert}; ssl_certificate_key {key}; root {folder}; }} }}"
        )
        with _serving("nginx", "-p", str(folder), "-c", str(folder / "conf")):
            figures += _figures("nginx_tls", _compare("nginx_tls", f"https://127.0.0.1:{PORT}/page", {**ways, "sslsniff": _sslsniff}))
            (folder / "page").write_bytes(b"x" * (1 << 20))
            large: dict[str, float] = {}
            with _ours(large):
                _ask(f"https://127.0.0.1:{PORT}/page")
            figures.append(figure("taps.cpu_per_mib", large["cpu_s"] * 1000 / (large["bytes"] / (1 << 20)), "ms"))
        figures += _decoding() + _trap()
    return figures


if __name__ == "__main__":
    for one in run():
        print(one)
