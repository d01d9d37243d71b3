"""A scanner worker: a process that holds no secret and one socket, reads what an attacker wrote, and answers with a verdict.

Two steps, so that whoever forks it can drop every right between them: `prepare` imports and opens all that is needed,
`serve` opens nothing. `python -m enforcer.scanner.worker --fd N --settings JSON` is both, for a gate without the helper.
"""

from __future__ import annotations

import argparse
import codecs
import hashlib
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass

from enforcer.scanner import frames
from enforcer.scanner.judge import Scanner
from enforcer.scanner.outgoing import Outgoing, document
from escrow import jsonrpc
from escrow.scanner_settings import ScannerSettings
from escrow.taint import NOTHING

ADDRESS_SPACE_BYTES = 6 * 1024**3
"""RLIMIT_AS of a worker: a 64 MiB message of small objects takes about 2 GiB once parsed, and arenas double it."""


@dataclass(frozen=True, slots=True)
class Judges:
    """What a worker judges with: of what a server says, and of what a client does."""

    scanner: Scanner
    outgoing: Outgoing


def prepare(settings: ScannerSettings) -> Judges:
    """Import the runtime, load rules and weights, and judge once, so that nothing is opened or imported later.

    Raises:
        model.ModelMissing: no weights, or others.
    """
    judges = Judges(Scanner(settings, with_model=True), Outgoing(settings))
    for codec in ("utf-16-le", "utf-16-be"):  # unpacking tries them; a codec is imported at its first use
        codecs.lookup(codec)
    text = "<p title='a b'>VGhpcyBpcyBhIHRlc3Qgb2YgdGhl%20 café &amp; \u200b\U000e0041"
    warm = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": text}]}}).encode()
    frames.encode(answer(judges, "message", warm))
    answer(judges, "text", "Ünïcode gur naq eht dna 1gn0r3 4ll pr3v \ud800 ".encode("utf-8", "replace") + b"\xff")
    answer(judges, "message", b"{")
    frames.encode(answer(judges, "request", warm))
    return judges


def limit() -> None:
    """Resource limits for the rest of the process's life: no new file descriptors, no children, no files, bounded memory."""
    import resource

    for what, most in (
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        if hard == resource.RLIM_INFINITY or most < hard:
            try:
                resource.setrlimit(what, (most, most))
            except (ValueError, OSError):  # macOS knows fewer of them; the helper's own limits are not touched here
                continue


def answer(judges: Judges, kind: frames.Kind, raw: bytes) -> frames.Answer:
    """Judge one question. Never raises for what it is asked about."""
    scanner = judges.scanner
    try:
        if kind == "request":
            message = jsonrpc.classify(jsonrpc.parse(raw), raw)
            examined = judges.outgoing.judge(document(message))
            return frames.Answer(examined.verdict, _envelope(message), (), examined.seen, examined.signs)
        envelope = None
        if kind == "text":
            verdict = scanner.judge_text(raw.decode("utf-8", "replace"))
        else:
            value = jsonrpc.parse(raw)
            if kind == "message":
                envelope = _envelope(jsonrpc.classify(value, raw))
            verdict = scanner.judge(value)
    except jsonrpc.Unreadable:
        return frames.failed("scanner.unreadable", kind)
    except MemoryError:
        return frames.failed("scanner.exhausted", kind)
    except Exception:  # whatever an attacker found: the verdict is UNSURE, and the next question is another
        return frames.failed("scanner.failed", kind)
    scores = tuple(scanner.fresh.items()) if len(scanner.fresh) <= frames.MAX_SCORES else ()
    seen = scanner.sightings()
    return frames.Answer(verdict, envelope, scores, seen if envelope is not None else NOTHING)


def serve(sock: socket.socket, judges: Judges) -> None:
    """Answer questions until the other end closes. A job that takes twice its deadline ends the process (SIGALRM)."""
    sock.setblocking(True)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while True:
        head = _receive(sock, frames.QUESTION.size)
        if head is None:
            return
        kind, size = frames.QUESTION.unpack(head)
        if kind >= len(frames.KINDS) or size > frames.MAX_QUESTION_BYTES:
            return
        raw = _receive(sock, size)
        if raw is None:
            return
        signal.setitimer(signal.ITIMER_REAL, 2 * judges.scanner.settings.deadline_s)
        reply = frames.encode(answer(judges, frames.KINDS[kind], raw))
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            sock.sendall(frames.ANSWER.pack(len(reply)) + reply)
        except OSError:
            return


def _envelope(message: jsonrpc.Message) -> frames.Envelope:
    digest = hashlib.sha256(message.raw).hexdigest()
    if isinstance(message, jsonrpc.Response):
        return frames.Envelope("response", message.id, None, message.is_error, digest)
    if isinstance(message, jsonrpc.Request):
        return frames.Envelope("request", message.id, message.method, False, digest)
    return frames.Envelope("notification", None, message.method, False, digest)


def _receive(sock: socket.socket, size: int) -> bytes | None:
    """Exactly so many bytes; None at the end of the stream."""
    whole = bytearray(size)
    view = memoryview(whole)
    at = 0
    while at < size:
        try:
            got = sock.recv_into(view[at:])
        except OSError:
            return None
        if got == 0:
            return None
        at += got
    return bytes(whole)


def main() -> int:
    """Entry of a worker that the daemon started itself."""
    parser = argparse.ArgumentParser(prog="enforcer.scanner.worker")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--settings", required=True)
    given = parser.parse_args()
    with socket.socket(fileno=given.fd) as sock:
        judges = prepare(ScannerSettings.model_validate_json(given.settings))
        limit()
        serve(sock, judges)
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # no interpreter shutdown: atexit hooks of native libraries want files that this process may no longer open
