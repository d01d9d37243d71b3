"""Frozen state, as a value."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path


class NotFrozen(Exception):
    """A state that could not be frozen, or not in time. `str()` says why, for people."""


@dataclass(frozen=True, slots=True)
class Mount:
    """lower: the frozen directory, to be the lower layer of the overlay that the twin sees at `at`. overlaid: false of a socket's folder, bound as it is."""

    lower: Path
    at: str
    overlaid: bool = True


@dataclass(frozen=True, slots=True)
class Frozen:
    """mounts: parents before what is mounted below them. why: in our words why this is not the state; "" where it is.

    left_out: paths of what cannot be copied (sockets, FIFOs, devices, other file systems), at most 64. processes: of the twin's own database servers.
    """

    folder: Path
    mounts: tuple[Mount, ...] = ()
    took_ms: float = 0.0
    why: str = ""
    left_out: tuple[str, ...] = ()
    processes: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        return not self.why


def in_time(until: float) -> None:
    """until: on `time.monotonic()`. Raises NotFrozen."""
    if time.monotonic() > until:
        raise NotFrozen("the state could not be frozen in its time")
