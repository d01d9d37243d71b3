"""The judges as custody knows them, made of the scanner in the relay, its workers, and the jury."""

from __future__ import annotations

from typing import Any

from enforcer.custody import Judges
from enforcer.scanner.judge import Scanner
from enforcer.scanner.pool import WorkerPool
from escrow import jsonrpc
from escrow.verdict import Verdict


def judges_of(scanner: Scanner, pool: WorkerPool) -> Judges:
    def quick(message: jsonrpc.Message) -> Verdict | None:
        return scanner.quick(_document(message), len(message.raw))

    async def judge(message: jsonrpc.Message) -> Verdict:
        return quick(message) or await pool.judge(message.raw, "message")

    return Judges(judge, quick)


def _document(message: jsonrpc.Message) -> Any:
    """The message's JSON value without its envelope's id: what pointers are relative to."""
    if isinstance(message, jsonrpc.Response):
        return {"error" if message.is_error else "result": message.value}
    return {"method": message.method, "params": message.params}
