"""What the second judge adds to a call's time: with twins from the pool, restored without one, and none, in one run.

The real server is the official Python SDK's, with a tool of 2 ms and one of 300 ms that read a state of 100 files. Each way has a Holdfast of its
own (proxy mode, root) in front of the same server; calls are taken in turn within a round, and differences within a round count.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from tests.bench.contenders import HOLDFAST, descendants, holdfast
from tests.bench.figure import Figure, figure
from tests.real.process import ROOT, Program, free_port

FILES = 100
ROUNDS = 4
CALLS = {"fast": 24, "slow": 4}
"""Calls in one round and way, at one at a time."""
TEXT = "The quick brown fox jumps over the lazy dog."
READY_S = 120.0
LOAD_S = 8.0
OTHERS_PAUSE_S = 0.02
WARM_CALLS = 4
"""More than the calls that a tool is learned from."""
PAUSE_S = 0.25
"""Between calls, for the pool to be filled again: what it can sustain is measured apart."""
HEADERS = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
}

_numbers = itertools.count(1)


def _policy(state: Path, pool: int | None) -> str:
    """pool: None without the second judge."""
    text = '[server]\nname = "bench"\n'
    if pool is None:
        return text
    command = ", ".join(f'"{word}"' for word in (sys.executable, str(ROOT / "tests/bench/twin_server.py"), str(state)))
    return text + (
        f'[judging]\njudges = ["scanner", "sandbox"]\nrequire = ["scanner", "sandbox"]\nclass = "reversible"\nwhen = "alongside"\n'
        f"[servers.bench.sandbox]\ncommand = [{command}]\npool = {pool}\nrun_ms = 20000\nsnapshot_ms = 5000\n"
        f'[[servers.bench.sandbox.state]]\nkind = "directory"\npath = "{state}"\n'
    )


async def _ask(client: httpx.AsyncClient, port: int, method: str, params: dict[str, Any], wanted: str) -> float:
    """Milliseconds of one request. Raises RuntimeError where its result did not come."""
    number = next(_numbers)
    body = {"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, "_meta": META}}
    named = {"mcp-name": params["name"]} if "name" in params else {}
    began = time.perf_counter()
    answer = await client.post(f"http://127.0.0.1:{port}/mcp", json=body, headers={**HEADERS, "mcp-method": method, **named})
    took = (time.perf_counter() - began) * 1000
    if wanted not in answer.text:
        raise RuntimeError(f"{method} {params}: {answer.status_code} {answer.text[:300]}")
    return took


async def _call(client: httpx.AsyncClient, port: int, tool: str) -> float:
    return await _ask(client, port, "tools/call", {"name": tool, "arguments": {"n": next(_numbers)}}, TEXT)


@dataclass(frozen=True, slots=True)
class Measured:
    """times: (way, tool, calls at once) → milliseconds, all rounds. others: see `_others`. sustained: calls a second. twins: from `status`."""

    times: dict[tuple[str, str, int], list[float]]
    others: float
    sustained: float
    twins: list[dict[str, Any]]


async def _measure(ports: dict[str, int], folder: Path) -> Measured:
    found: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    async with httpx.AsyncClient(timeout=60) as client:
        for way, port in ports.items():
            await _warm(client, port, folder / way)
        for _ in range(ROUNDS):
            for tool, calls in CALLS.items():
                for way, port in ports.items():
                    for _ in range(calls):
                        found[way, tool, 1].append(await _call(client, port, tool))
                        await asyncio.sleep(PAUSE_S)
            for at_once in (4, 16):
                for way, port in ports.items():
                    found[way, "fast", at_once] += await asyncio.gather(*(_call(client, port, "fast") for _ in range(at_once)))
                    await asyncio.sleep(at_once * PAUSE_S)
        return Measured(found, await _others(client, ports["pool"]), await _sustained(client, ports["pool"]), _shown(folder / "pool"))


def _held(own: Path) -> list[str]:
    """Why results are held, where one is that should not be."""

    def ask(*command: str) -> Any:
        said = subprocess.run(
            [HOLDFAST, "escrow", *command, "--json", "--runtime-dir", str(own / "run")], capture_output=True, text=True, check=True, timeout=10
        )
        return json.loads(said.stdout)

    shown = [ask("show", row["id"]) for row in ask("ls")]
    return [f"{row['sandbox'] and row['sandbox']['why']}: {[(each['judge'], each['finding'], each['reasons']) for each in row['verdicts']]}" for row in shown]


async def _sustained(client: httpx.AsyncClient, port: int) -> float:
    """Calls a second of four clients that ask again at once: what making twins anew sustains."""
    until, done = time.monotonic() + LOAD_S, 0

    async def ask() -> None:
        nonlocal done
        while time.monotonic() < until:
            await _call(client, port, "fast")
            done += 1

    began = time.monotonic()
    await asyncio.gather(*(ask() for _ in range(4)))
    return done / (time.monotonic() - began)


async def _others(client: httpx.AsyncClient, port: int) -> float:
    """How much longer a listing of the tools takes at the median while two calls a second run in twins, and these are made anew."""

    async def list_tools(seconds: float) -> list[float]:
        until, took = time.monotonic() + seconds, []
        while time.monotonic() < until:
            took.append(await _ask(client, port, "tools/list", {}, "tools"))
            await asyncio.sleep(OTHERS_PAUSE_S)
        return took

    async def run_twins() -> None:
        while True:
            await _call(client, port, "fast")
            await asyncio.sleep(0.5)

    alone, beside = [], []
    for _ in range(3):
        alone += await list_tools(3)
        running = asyncio.create_task(run_twins())
        beside += await list_tools(6)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.sleep(2)
    return median(beside) / median(alone)


async def _warm(client: httpx.AsyncClient, port: int, own: Path) -> None:
    """Until the templates are there, where there are any, and an answer came through, whose text the scanner knows then."""
    until = time.monotonic() + READY_S
    while why := [row["why"] for row in _shown(own) if not row["template"]]:
        if time.monotonic() > until:
            raise RuntimeError(f"{own.name}: no template in {READY_S:g} s: {why}")
        await asyncio.sleep(1)
    for _ in range(WARM_CALLS):
        await _call(client, port, "fast")
        await asyncio.sleep(PAUSE_S * 4)


def _shown(own: Path) -> list[dict[str, Any]]:
    """What `holdfast status` says of the twins."""
    said = subprocess.run([HOLDFAST, "status", "--json", "--runtime-dir", str(own / "run")], capture_output=True, text=True, check=True, timeout=10)
    found = json.loads(said.stdout)["sandbox"]
    return [] if found is None else list(found["servers"])


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100)[98]


def run() -> list[Figure]:
    """Needs root and runsc. Raises RuntimeError."""
    if os.geteuid() != 0:
        raise RuntimeError("the sandbox's bench needs root")
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir="/var/tmp") as made, ExitStack() as stack:
        folder = Path(made)
        os.chmod(folder, 0o755)
        state = folder / "state"
        state.mkdir()
        for number in range(FILES):
            (state / f"{number}.txt").write_text(TEXT)
        target = free_port()
        server = Program([sys.executable, str(ROOT / "tests/bench/twin_server.py"), str(state), str(target)], folder / "server")
        stack.callback(server.kill)
        server.wait_listening(target)
        ports, processes = {}, {}
        for way, pool in (("alone", None), ("pool", 4), ("restored", 0)):
            port = ports[way] = free_port()
            policy = folder / f"{way}.toml"
            policy.write_text(_policy(state, pool))
            arguments = ["proxy", "--listen", f"127.0.0.1:{port}", "--upstream", f"http://127.0.0.1:{target}", "--policy", str(policy), "--mcp-listen", "none"]
            processes[way] = stack.enter_context(holdfast(way, arguments, port, server.process.pid, folder, warm=())).process
        try:
            measured = asyncio.run(_measure(ports, folder))
        except RuntimeError as error:
            raise RuntimeError(f"{error}; held: {[_held(folder / way) for way in ports]}") from None
        memory = _memory(processes["pool"])
    return _figures(measured, memory)


def _memory(process: int | None) -> list[float]:
    """MiB of each waiting twin, by its control group."""
    keepers = set() if process is None else set(descendants(process))
    found = []
    for name in ("memory.current", "memory.usage_in_bytes"):
        for path in Path("/sys/fs/cgroup").glob(f"**/holdfast-twins/twin-*/{name}"):
            if int(path.parent.name.split("-")[1]) in keepers:
                found.append(int(path.read_text()) / (1 << 20))
    return found


def _figures(measured: Measured, memory: list[float]) -> list[Figure]:
    times = measured.times
    alone, pool, restored = (times[way, "fast", 1] for way in ("alone", "pool", "restored"))
    slow = median(times["pool", "slow", 1]) - median(times["alone", "slow", 1])
    template = next(row["template"] for row in measured.twins if row["era"] == "2026-07-28")
    figures = [
        figure("sandbox.fast.added_p50.pool", median(pool) - median(alone), "ms", at_most=20),
        figure("sandbox.fast.added_p99.pool", _p99(pool) - median(alone), "ms", at_most=60),
        figure("sandbox.fast.added_p50.restored", median(restored) - median(alone), "ms", at_most=300),
        figure("sandbox.slow.added_p50.pool", slow, "ms", at_most=15),
        figure("sandbox.others.p50", measured.others, "times its time without twins", at_most=1.1),
        figure("sandbox.fast.p50.alone", median(alone), "ms"),
        figure("sandbox.sustained", measured.sustained, "calls/s of four clients, twins made anew"),
        figure("sandbox.memory", median(memory), "MiB of a waiting twin"),
        figure("sandbox.template", template["start_ms"] + template["checkpoint_ms"] + template["restore_ms"], "ms to build a template"),
        figure("sandbox.restore", template["restore_ms"], "ms to restore a twin, when its template was built"),
    ]
    for at_once in (4, 16):
        for way in ("pool", "restored"):
            added = median(times[way, "fast", at_once]) - median(times["alone", "fast", at_once])
            figures.append(figure(f"sandbox.fast.added_p50_{at_once}.{way}", added, "ms"))
    return figures
