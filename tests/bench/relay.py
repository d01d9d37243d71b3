"""What the gate adds to a small tools/call, next to nothing, HAProxy and mitmproxy: interleaved rounds in one run.

Absolute times swing between runs, so goals are ratios taken within a round; the median over the rounds counts. The steadiest
figure is CPU a request, with the relay alone on one core and load and upstream on the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.bench.contenders import Contender, compile_c, contenders, cpu_seconds, descendants
from tests.bench.figure import Figure, figure

ROUNDS = 5
ROUND_S = 1.0
CPU_S = 2.0
WARM_S = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """What the load generator saw. Times in microseconds, rate in requests a second."""

    count: int
    errors: int
    p50_us: float
    p99_us: float
    rate: float


Samples = dict[tuple[str, str], list[Load]]
"""(contender, load) → one sample a round."""


def drive(contender: Contender, path: str, connections: int, seconds: float, core: int | None = None) -> Load:
    """Send load. Raises RuntimeError when anything but 200 came back: a refused request is fast, and proves nothing."""
    command = [str(compile_c("load")), str(contender.port), path, str(connections), str(seconds)]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode != 0:
        raise RuntimeError(f"{contender.name}, {connections} connections: {done.stderr.strip()}")
    load = Load(**json.loads(done.stdout))
    if load.errors:
        raise RuntimeError(f"{contender.name}, {connections} connections: {load.errors} of {load.count} answers were not 200")
    return load


@contextmanager
def neighbour(contender: Contender, seconds: float) -> Iterator[None]:
    """Somebody else on another connection who gets one 1 MiB result after the other."""
    command = [str(compile_c("load")), str(contender.port), "/big", "1", str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as beside:
        try:
            yield
        finally:
            beside.kill()


def _pin(process: int, cores: set[int]) -> None:
    for one in descendants(process):
        subprocess.run(["taskset", "-a", "-c", "-p", ",".join(map(str, sorted(cores))), str(one)], check=True, capture_output=True)


def cpu_us_per_request(contender: Contender, process: int) -> float:
    """CPU time of the relay for one request at 16 connections, in microseconds, the relay alone on core 0."""
    everywhere = os.sched_getaffinity(0)
    other = max(everywhere)
    _pin(process, {min(everywhere)})
    _pin(contender.server, {other})
    before = cpu_seconds(process)
    load = drive(contender, "/mcp", 16, CPU_S, core=other)
    used = cpu_seconds(process) - before
    _pin(process, everywhere)
    _pin(contender.server, everywhere)
    return used / load.count * 1e6


def measure(competing: list[Contender]) -> tuple[Samples, dict[str, float]]:
    """All rounds, the contenders taking turns within each."""
    samples: Samples = defaultdict(list)
    for contender in competing:
        drive(contender, "/mcp", 4, WARM_S)
    for _ in range(ROUNDS):
        for label, path, connections in (("1", "/mcp", 1), ("16", "/mcp", 16), ("1 MiB", "/big", 1)):
            for contender in competing:
                samples[contender.name, label].append(drive(contender, path, connections, ROUND_S))
        for contender in competing:
            with neighbour(contender, 2 * ROUND_S):
                samples[contender.name, "1 beside 1 MiB"].append(drive(contender, "/mcp", 1, ROUND_S))
    cpu = {c.name: cpu_us_per_request(c, c.process) for c in competing if c.process is not None}
    return samples, cpu


def _over_rounds(samples: Samples, label: str, ratio: Callable[[dict[str, Load]], float]) -> float:
    """The median over the rounds of a figure computed within each."""
    names = [name for name, which in samples if which == label]
    return median(ratio({name: samples[name, label][at] for name in names}) for at in range(ROUNDS))


def figures(samples: Samples, cpu: dict[str, float]) -> list[Figure]:
    """The figures with their goals."""
    found: list[Figure] = []
    for name in ("holdfast", "holdfast-steered"):
        if name not in cpu:
            continue

        def added(at: dict[str, Load], name: str = name) -> float:
            return (at[name].p50_us - at["direct"].p50_us) / max(at["haproxy"].p50_us - at["direct"].p50_us, 1.0)

        def faster(at: dict[str, Load], name: str = name) -> float:
            return at[name].rate / at["mitmproxy"].rate

        beside = median(many.p50_us / one.p50_us for one, many in zip(samples[name, "1"], samples[name, "1 beside 1 MiB"], strict=True))
        found += [
            figure(f"relay.{name}.moved_by_1mib", beside, "x its p50 alone", at_most=1.2),
            figure(f"relay.{name}.added_p50_1", _over_rounds(samples, "1", added), "x HAProxy's", at_most=3),
            figure(f"relay.{name}.added_p50_16", _over_rounds(samples, "16", added), "x HAProxy's", at_most=5),
            figure(f"relay.{name}.rate_16", _over_rounds(samples, "16", faster), "x mitmproxy's", at_least=10),
            figure(f"relay.{name}.cpu", cpu[name] / cpu["haproxy"], "x HAProxy's", at_most=5),
        ]
    for (name, label), loads in samples.items():
        word = label.replace(" ", "").replace("beside", "_beside_").lower()
        found += [
            figure(f"relay.{name}.p50_{word}", median(load.p50_us for load in loads), "us"),
            figure(f"relay.{name}.p99_{word}", median(load.p99_us for load in loads), "us"),
            figure(f"relay.{name}.requests_{word}", median(load.rate for load in loads), "1/s"),
        ]
    return found + [figure(f"relay.{name}.cpu_us", used, "us/request") for name, used in cpu.items()]


def show(samples: Samples, cpu: dict[str, float], console: Console) -> None:
    """The table a person reads."""
    columns = ("", "p50 µs, 1", "p99", "p50 µs, 16", "p99", "requests/s, 16", "p50 µs, 1 MiB", "p50 µs, 1 beside it", "CPU µs/request")
    table = Table(*columns, title="One small tools/call")
    for name in dict.fromkeys(name for name, _ in samples):
        one, many, big, beside = (samples[name, label] for label in ("1", "16", "1 MiB", "1 beside 1 MiB"))
        table.add_row(
            name,
            *(f"{median(values):,.0f}" for values in ([x.p50_us for x in one], [x.p99_us for x in one])),
            *(f"{median(values):,.0f}" for values in ([x.p50_us for x in many], [x.p99_us for x in many], [x.rate for x in many])),
            f"{median(x.p50_us for x in big):,.0f}",
            f"{median(x.p50_us for x in beside):,.0f}",
            f"{cpu[name]:.1f}" if name in cpu else "",
        )
    console.print(table)


def run() -> list[Figure]:
    """Measure, print the table, give the figures."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory, contenders(Path(directory)) as competing:
        samples, cpu = measure(competing)
    show(samples, cpu, Console())
    return figures(samples, cpu)
