"""State as a twin is given it: what the makers of snapshots promise to those who run twins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from escrow.sandbox.effects import Effects


class CannotFreeze(Exception):
    """The state could not be frozen, or not in time. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One place of state as an overlay (overlayfs.rst): `place` inside the twin; lower: frozen, topmost first; upper and work: of this run alone."""

    place: str
    lower: tuple[Path, ...]
    upper: Path
    work: Path


class Frozen(Protocol):
    """State at one moment, for one run."""

    @property
    def layers(self) -> tuple[Layer, ...]: ...

    @property
    def took_ms(self) -> float: ...

    def effects(self, log: Path) -> Effects:
        """What the run did, when it is over: from its layers and the folder of its traces. log holds one `*.boot.txt`."""

    def release(self) -> None:
        """Throw the copies away. Called once, when nothing uses them."""


class Snapshots(Protocol):
    """Freezes a server's state."""

    async def freeze(self, folder: Path) -> Frozen:
        """Freeze it now, into a folder that does not exist yet. CannotFreeze where that fails or takes too long."""
