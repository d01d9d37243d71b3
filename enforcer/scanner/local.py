"""Workers that this process starts and asks itself, for the gate without a helper and for `holdfast scan`."""

from __future__ import annotations

import socket
import subprocess
import sys

from enforcer.scanner import frames
from escrow.scanner_settings import ScannerSettings


def spawn_local(settings: ScannerSettings) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a worker process. Closing the socket ends it; the caller waits for the process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "enforcer.scanner.worker", "--fd", str(theirs.fileno()), "--settings", settings.model_dump_json()],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env={
                "PYTHONPATH": ":".join(path for path in sys.path if path),
                "PATH": "/usr/bin:/bin",
                "ORT_DISABLE_TELEMETRY": "1",
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },
        )
    return ours, process


def ask(sock: socket.socket, kind: frames.Kind, raw: bytes, sentences: dict[str, str], deadline_s: float) -> frames.Answer:
    """Put one question and wait for the answer. Raises OSError (also on a late or dead worker) and frames.Garbled."""
    sock.settimeout(deadline_s)
    sock.sendall(frames.QUESTION.pack(frames.KINDS.index(kind), len(raw)) + raw)
    (size,) = frames.ANSWER.unpack(_receive(sock, frames.ANSWER.size))
    if size > frames.MAX_ANSWER_BYTES:
        raise frames.Garbled("the answer is too long")
    return frames.decode(_receive(sock, size), sentences, kind)


def _receive(sock: socket.socket, size: int) -> bytes:
    whole = bytearray()
    while len(whole) < size:
        part = sock.recv(min(65536, size - len(whole)))
        if not part:
            raise ConnectionError("the worker has gone")
        whole += part
    return bytes(whole)
