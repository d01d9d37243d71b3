"""Small logs to try things on."""

from __future__ import annotations

import shutil
from pathlib import Path

from enforcer.evidence import EvidenceLog, keys
from enforcer.evidence.files import folder_of
from enforcer.evidence.verify import Report, verify
from escrow.evidence.entry import Enforcing, Event
from escrow.evidence.note import Signed, Verifier, find_notes

NEVER = 1000.0
"""Seconds: a checkpoint only at the start and the stop."""


def opened(state: Path, published: list[str] | None = None, *, segment_bytes: int = 64 << 20, checkpoint_s: float = NEVER, sync_s: float = 0.05) -> EvidenceLog:
    state.mkdir(exist_ok=True)
    sink = published if published is not None else []
    return EvidenceLog.open(state, "port-1", sink.append, segment_bytes=segment_bytes, checkpoint_s=checkpoint_s, sync_s=sync_s)


def event(number: int) -> Event:
    return Enforcing(f"event {number}")


def written(state: Path, *counts: int, segment_bytes: int = 64 << 20) -> list[str]:
    """A log of so many entries a session, each session ended cleanly. Returns the checkpoints."""
    published: list[str] = []
    for count in counts:
        log = opened(state, published, segment_bytes=segment_bytes)
        for _ in range(count):
            log.record(event(log.size))
        log.close()
    return published


def crashed(log: EvidenceLog, state: Path, to: Path) -> Path:
    """The files as a kill -9 at this moment would leave them."""
    return Path(shutil.copytree(state, to))


def checked(state: Path, verifier: Verifier | None = None, kept: list[Signed] | None = None) -> Report:
    return verify(folder_of(state), verifier or keys.public_key(state), kept or [])


def notes(state: Path, texts: list[str]) -> list[Signed]:
    return find_notes("".join(texts), keys.public_key(state).name)


def one_segment(state: Path) -> Path:
    (path,) = folder_of(state).glob("entries-*")
    return path


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)
