"""The daemon's side of the workers: who judges what next, and what it means when one is late, dead or lying.

`judge` never raises and never hangs: whatever goes wrong is a verdict UNSURE, which holds. Small messages have a worker that no large one
may take, so that a small result never waits behind one of 10 MiB.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from enforcer.exactly import receive
from enforcer.scanner import frames
from enforcer.scanner.frames import Answer, Garbled, Kind
from enforcer.scanner.judge import Scanner
from enforcer.scanner.outgoing import Examined, Outgoing
from escrow import jsonrpc
from escrow.scanner_settings import ScannerSettings
from escrow.verdict import Verdict, unsure

TRIES: Final = 2
"""Workers that a message may cost: one that kills two is not tried on a third."""

_TEXTS: Final = {
    "scanner.late": "The scanner did not answer in time.",
    "scanner.crashed": "The scanner's worker died over it.",
    "scanner.garbled": "The scanner's worker gave no proper answer.",
    "scanner.missing": "No worker of the scanner is running.",
    "scanner.busy": "Too much is waiting for the scanner.",
    "scanner.too-large": "It is larger than what the scanner takes.",
}


@dataclass(eq=False, slots=True)
class _Worker:
    sock: socket.socket
    task: asyncio.Task[None] | None = None


@dataclass(eq=False, slots=True)
class _Job:
    kind: Kind
    raw: bytes
    done: asyncio.Future[Answer]
    tries: int = 0
    begun: bool = False
    worker: _Worker | None = field(default=None)


class WorkerPool:
    """The workers and what waits for them. Lives on one event loop.

    on_lost: called once for every worker that is given up (dead, late or lying), so that another can be made.
    scanner: the relay's own, which learns the scores of small messages' windows; the next equal leaf needs no worker.
    """

    def __init__(self, settings: ScannerSettings, scanner: Scanner | None = None, on_lost: Callable[[], None] | None = None) -> None:
        self._settings = settings
        self._scanner = scanner
        self._on_lost = on_lost
        self._sentences = frames.texts()
        self._workers: list[_Worker] = []
        self._waiting: deque[_Job] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._running: set[asyncio.Task[None]] = set()

    @property
    def workers(self) -> int:
        """How many workers live."""
        return len(self._workers)

    def add(self, sock: socket.socket) -> None:
        """Take a worker's socket over. Call on the loop's thread."""
        sock.setblocking(False)
        worker = _Worker(sock)
        self._workers.append(worker)
        self._rest(worker)
        self._dispatch()

    async def judge(self, raw: bytes, kind: Kind = "message") -> Verdict:
        """The verdict on a message's bytes."""
        return (await self.answer(raw, kind)).verdict

    async def examine(self, raw: bytes, outgoing: Outgoing) -> Examined:
        """What is known of a client's message; `outgoing` tells which canaries are ours."""
        answer = await self.answer(raw, "request")
        return outgoing.conclude(Examined(answer.verdict, answer.seen, answer.signs))

    async def answer(self, raw: bytes, kind: Kind = "message") -> Answer:
        """The verdict, and the envelope of a message. Never raises (but for cancellation of the caller)."""
        if len(raw) > frames.MAX_QUESTION_BYTES:
            return _unsure("scanner.too-large", kind)
        if len(self._waiting) >= self._settings.queue_jobs or self._waiting_bytes + len(raw) > self._settings.queue_bytes:
            return _unsure("scanner.busy", kind)
        if self._closed:
            return _unsure("scanner.missing", kind)
        loop = asyncio.get_running_loop()
        job = _Job(kind, raw, loop.create_future())
        self._waiting.append(job)
        self._waiting_bytes += len(raw)
        self._dispatch()
        until = loop.time() + self._settings.deadline_s
        try:
            if not self._workers:
                await asyncio.wait({job.done}, timeout=min(self._settings.missing_s, self._settings.deadline_s))
                if not job.done.done() and not job.begun:
                    return _unsure("scanner.missing", kind)
            await asyncio.wait({job.done}, timeout=max(0.0, until - loop.time()))
            if job.done.done():
                return job.done.result()
            return _unsure("scanner.late" if self._workers or job.begun else "scanner.missing", kind)
        finally:
            self._forget(job)

    async def close(self) -> None:
        """Let all workers go. What still waits is answered with UNSURE."""
        self._closed = True
        for job in list(self._waiting):
            self._finish(job, _unsure("scanner.missing", job.kind))
        for worker in list(self._workers):
            if worker.task is not None:
                worker.task.cancel()
            asyncio.get_running_loop().remove_reader(worker.sock)
            worker.sock.close()
        self._workers.clear()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _forget(self, job: _Job) -> None:
        """A job whose caller no longer waits: drop it, and the worker that is still at it, which cannot be interrupted otherwise."""
        if job in self._waiting:
            self._waiting.remove(job)
            self._waiting_bytes -= len(job.raw)
        if not job.done.done():
            job.done.cancel()
            if job.worker is not None:
                self._lose(job.worker)

    def _dispatch(self) -> None:
        for worker in list(self._workers):
            if worker.task is None and not self._give(worker):
                continue

    def _give(self, worker: _Worker) -> bool:
        """Give an idle worker the first job it may have."""
        reserved = len(self._workers) > 1 and worker is self._workers[0]
        job = next((job for job in self._waiting if not reserved or len(job.raw) <= self._settings.small_bytes), None)
        if job is None:
            return False
        self._waiting.remove(job)
        self._waiting_bytes -= len(job.raw)
        job.begun, job.worker = True, worker
        job.tries += 1
        loop = asyncio.get_running_loop()
        loop.remove_reader(worker.sock)
        worker.task = loop.create_task(self._run(worker, job))
        self._running.add(worker.task)
        worker.task.add_done_callback(self._running.discard)
        return True

    async def _run(self, worker: _Worker, job: _Job) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(worker.sock, frames.QUESTION.pack(frames.KINDS.index(job.kind), len(job.raw)))
            await loop.sock_sendall(worker.sock, job.raw)
            (size,) = frames.ANSWER.unpack(await receive(worker.sock, frames.ANSWER.size))
            if size > frames.MAX_ANSWER_BYTES:
                raise Garbled("the answer is too long")
            answer = frames.decode(await receive(worker.sock, size), self._sentences, job.kind)
        except Garbled:
            self._lose(worker)
            self._finish(job, _unsure("scanner.garbled", job.kind))
        except (OSError, ValueError):  # ValueError: the socket was closed under us by `_lose`
            self._lose(worker)
            self._again(job)
        else:
            worker.task = job.worker = None
            self._rest(worker)
            self._teach(job, answer)
            self._finish(job, answer)
        self._dispatch()

    def _rest(self, worker: _Worker) -> None:
        """Nothing is asked of it for now: should it say something or end, it is replaced before a message finds out."""
        asyncio.get_running_loop().add_reader(worker.sock, self._lose, worker)

    def _again(self, job: _Job) -> None:
        job.worker = None
        if job.done.done():
            return
        if job.tries >= TRIES or self._closed:
            self._finish(job, _unsure("scanner.crashed", job.kind))
        else:
            self._waiting.appendleft(job)
            self._waiting_bytes += len(job.raw)

    def _finish(self, job: _Job, answer: Answer) -> None:
        if not job.done.done():
            job.done.set_result(answer)

    def _lose(self, worker: _Worker) -> None:
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        if worker.task is not None and worker.task is not asyncio.current_task():
            worker.task.cancel()
        asyncio.get_running_loop().remove_reader(worker.sock)
        worker.sock.close()
        if self._on_lost is not None and not self._closed:
            self._on_lost()

    def _teach(self, job: _Job, answer: Answer) -> None:
        """Let the relay's scanner remember scores, but only of windows that stand in the message it asked about."""
        if self._scanner is None or not answer.scores or job.kind in ("text", "request") or len(job.raw) > self._settings.quick_bytes:
            return
        try:
            document = jsonrpc.parse(job.raw)
        except jsonrpc.Unreadable:
            return
        wanted = self._scanner.wanted(document)
        self._scanner.learn({key: logit for key, logit in answer.scores if key in wanted})


def _unsure(rule: str, kind: Kind) -> Answer:
    return Answer(unsure(frames.judge_of(kind), rule, _TEXTS[rule]))
