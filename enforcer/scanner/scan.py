"""The scanner alone, for `holdfast scan`: texts in, verdicts out, by the gate's own code and thresholds."""

from __future__ import annotations

import json
import socket
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType

from enforcer.scanner import frames
from enforcer.scanner.judge import JUDGE, Scanner
from enforcer.scanner.local import ask, spawn_local
from escrow.scanner_settings import ScannerSettings
from escrow.verdict import Verdict, unsure

AHEAD = 64
"""Lines read before the first of them is answered."""


def scan_text(text: str | bytes, settings: ScannerSettings | None = None) -> Verdict:
    """The verdict on one text. Text that is JSON is unpacked as JSON. Raises model.ModelMissing."""
    scanner = Scanner(settings or ScannerSettings(), with_model=True)
    return scanner.judge_text(text if isinstance(text, str) else text.decode("utf-8", "replace"))


class Bench:
    """Worker processes that judge texts side by side, for as long as the context lasts."""

    def __init__(self, settings: ScannerSettings) -> None:
        self._settings = settings
        self._sentences = frames.texts()
        self._idle: SimpleQueue[tuple[socket.socket, subprocess.Popen[bytes]]] = SimpleQueue()
        self._threads = ThreadPoolExecutor(settings.workers)

    def __enter__(self) -> Bench:
        for _ in range(self._settings.workers):
            self._idle.put(spawn_local(self._settings))
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            _end(*self._idle.get())

    def submit(self, raw: bytes) -> Future[Verdict]:
        """Judge a text as soon as a worker is idle."""
        return self._threads.submit(self._one, raw)

    def _one(self, raw: bytes) -> Verdict:
        sock, process = self._idle.get()
        try:
            if len(raw) > frames.MAX_QUESTION_BYTES:
                return unsure(JUDGE, "scanner.too-large", "It is larger than what the scanner takes.")
            return ask(sock, "text", raw, self._sentences, self._settings.deadline_s).verdict
        except (OSError, frames.Garbled) as problem:
            _end(sock, process)
            sock, process = spawn_local(self._settings)
            if isinstance(problem, TimeoutError):
                return unsure(JUDGE, "scanner.late", "The scanner did not answer in time.")
            return unsure(JUDGE, "scanner.crashed", "The scanner's worker died over it.")
        finally:
            self._idle.put((sock, process))


def scan_lines(lines: Iterable[str | bytes], settings: ScannerSettings | None = None) -> Iterator[Verdict]:
    """One verdict a line, in order; a line is `{"text": …}`. A line that is none is UNSURE (`scanner.bad-line`), and the rest goes on."""
    with Bench(settings or ScannerSettings()) as bench:
        ahead: deque[Future[Verdict] | Verdict] = deque()
        for line in lines:
            raw = _text(line)
            ahead.append(unsure(JUDGE, "scanner.bad-line", 'The line is no JSON object with a string "text".') if raw is None else bench.submit(raw))
            if len(ahead) >= AHEAD:
                yield _result(ahead.popleft())
        while ahead:
            yield _result(ahead.popleft())


def _result(found: Future[Verdict] | Verdict) -> Verdict:
    return found if isinstance(found, Verdict) else found.result()


def _text(line: str | bytes) -> bytes | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    text = value.get("text") if isinstance(value, dict) else None
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else None


def _end(sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
    sock.close()
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
