"""What it costs to record one judged message, beside a bare write of the same bytes; rounds of both take turns in one run. CPU time of the
thread: wall time would be the neighbours'.

Also: a record that somebody waits to be synced, beside a bare write and fdatasync; and the checker's time for an entry.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from enforcer.evidence import EvidenceLog, keys
from enforcer.evidence.files import folder_of
from enforcer.evidence.verify import verify
from escrow.evidence.entry import Judged
from escrow.verdict import Finding, Verdict
from tests.bench.figure import Figure, figure

ROUNDS = 15
RECORDS = 2000
SYNCS = 20
MESSAGE = b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"' + b"x" * 200 + b'"}],"isError":false}}'
VERDICTS = (Verdict("scanner", Finding.CLEAN, 0.0123, (), 0.1),)


def judged() -> Judged:
    return Judged(
        "to-client", "tools/call", "read_file", "port-8931", "local:uid=1000,cgroup=4242", "9f86d081884c7d65", "ab" * 32, MESSAGE, VERDICTS,
        "release", "scanner only", "0123456789abcdef",
    )  # fmt: skip


def _us(work: Callable[[], object], times: int, clock: Callable[[], float] = time.thread_time) -> float:
    before = clock()
    for _ in range(times):
        work()
    return (clock() - before) / times * 1e6


async def _synced_us(log: EvidenceLog, times: int) -> float:
    before = time.perf_counter()
    for _ in range(times):
        await log.synced(log.record(judged()))
    return (time.perf_counter() - before) / times * 1e6


def run() -> list[Figure]:
    """Measure, print the table, give the figures."""
    rows: list[tuple[float, float, float, float]] = []
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
        state = Path(directory)
        log = EvidenceLog.open(state, "bench", lambda text: None)
        log.record(judged())
        line = next(folder_of(state).glob("entries-*")).read_bytes().splitlines(keepends=True)[1]
        bare = os.open(state / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

        def write_and_sync() -> None:
            os.write(bare, line)
            os.fdatasync(bare)

        for _ in range(ROUNDS):
            floor, record = _us(lambda: os.write(bare, line), RECORDS), _us(lambda: log.record(judged()), RECORDS)
            rows.append((floor, record, _us(write_and_sync, SYNCS, time.perf_counter), asyncio.run(_synced_us(log, SYNCS))))
        os.close(bare)
        log.close()
        before = time.thread_time()
        report = verify(folder_of(state), keys.public_key(state))
        checked_us = (time.thread_time() - before) / report.size * 1e6
        if not report.sound(allow_tail=False):
            raise RuntimeError("the log that was measured is not sound")
    found = [
        figure("evidence.record", median(row[1] for row in rows), "us", at_most=25),
        figure("evidence.write", median(row[0] for row in rows), "us"),
        figure("evidence.record_over_write", median(row[1] / row[0] for row in rows), "x a bare write"),
        figure("evidence.synced", median(row[3] for row in rows), "us"),
        figure("evidence.synced_over_fdatasync", median(row[3] / row[2] for row in rows), "x write and fdatasync"),
        figure("evidence.verify", checked_us, "us/entry"),
    ]
    table = Table("", "value", title=f"Evidence: one judged message ({len(line)} bytes written)")
    for one in found:
        table.add_row(one["id"].removeprefix("evidence."), f"{one['value']:,.1f} {one['unit']}")
    Console().print(table)
    return found


if __name__ == "__main__":
    run()
