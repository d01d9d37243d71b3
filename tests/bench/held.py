"""Ten thousand held results with their clients connected: what they cost in memory, and how soon a decision reaches who waits."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import cast

from enforcer.control import client as control
from tests.bench.contenders import Contender, call, descendants, holdfast, upstream
from tests.bench.figure import Figure, figure
from tests.real.process import free_port

HELD = 10_000
AT_ONCE = 32
DECISIONS = 50
WAIT_S = 300
POLICY = "[escrow]\nclaim_after_s = 3600\n\n[bounds]\nconnections = 12000\nidle_s = 86400\n"


def pss_mib(process: int) -> float:
    """Proportional set size of a process and all below it, in MiB (proc(5), smaps_rollup)."""
    kib = 0
    for one in descendants(process):
        lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        kib += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


class Waiter(asyncio.Protocol):
    """A client whose result is going to be held. heard: told when the first byte of its answer comes."""

    def __init__(self, call_id: int, heard: Callable[[], None]) -> None:
        self._call_id, self._heard = call_id, heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        body = call(self._call_id)
        lines = ("POST /hostile HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", "MCP-Protocol-Version: 2026-07-28")
        self.transport.write("\r\n".join((*lines, f"Content-Length: {len(body)}\r\n\r\n")).encode() + body)

    def data_received(self, data: bytes) -> None:
        self._heard()


async def hold(contender: Contender, socket: Path, heard: Callable[[], None]) -> list[Waiter]:
    """Have them all held, a few at a time."""
    waiters: list[Waiter] = []
    until = time.monotonic() + WAIT_S
    loop = asyncio.get_running_loop()
    while len(waiters) < HELD:
        for _ in range(AT_ONCE):
            waiter = Waiter(len(waiters) + 1, heard)
            await loop.create_connection(lambda waiter=waiter: waiter, "127.0.0.1", contender.port)  # type: ignore[misc]
            waiters.append(waiter)
        while (held := (await asyncio.to_thread(control.ask, socket, "status"))["counters"]["held"]) < len(waiters):
            if time.monotonic() > until:
                raise RuntimeError(f"only {held} of {HELD} results were held after {WAIT_S} s")
            await asyncio.sleep(0.005)
    return waiters


async def decisions_ms(heard: asyncio.Event, socket: Path) -> list[float]:
    """From a person's decision, as the control socket gets it, to the first byte at the client, in milliseconds."""
    rows = await asyncio.to_thread(control.ask, socket, "escrow.ls")
    took = []
    for row in rows[:DECISIONS]:
        heard.clear()
        began = time.perf_counter()
        asking = asyncio.ensure_future(asyncio.to_thread(control.ask, socket, "escrow.approve", id=row["id"], why="bench"))
        async with asyncio.timeout(WAIT_S):
            await heard.wait()
        took.append((time.perf_counter() - began) * 1000)
        await asking
    return took


async def measure(contender: Contender, socket: Path) -> list[Figure]:
    assert contender.process is not None
    idle = pss_mib(contender.process)
    heard = asyncio.Event()
    waiters = await hold(contender, socket, heard.set)
    held = pss_mib(contender.process) - idle
    took = sorted(await decisions_ms(heard, socket))
    for waiter in waiters:
        waiter.transport.abort()
    return [
        figure("held.idle_pss", idle, "MiB"),
        figure("held.pss_above_idle", held, f"MiB for {len(waiters)} of 10 KB", at_most=300),
        figure("held.decision_to_first_byte_p50", median(took), "ms", at_most=50),
        figure("held.decision_to_first_byte_p99", took[len(took) * 99 // 100], "ms", at_most=50),
    ]


def run() -> list[Figure]:
    """Measure. Needs that many file descriptors, twice."""
    if os.sysconf("SC_OPEN_MAX") < HELD + 500:
        raise RuntimeError(f"{HELD} held results need more open files: ulimit -n {HELD + 500}")
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
        folder = Path(directory)
        (folder / "policy.toml").write_text(POLICY)
        port = free_port()
        with upstream(folder) as (target, server):
            where = ["proxy", "--listen", f"127.0.0.1:{port}", "--upstream", f"http://127.0.0.1:{target}", "--policy", str(folder / "policy.toml")]
            with holdfast("holdfast", where, port, server, folder) as contender:
                return asyncio.run(measure(contender, folder / "holdfast" / "run" / "control.sock"))


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
