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
    """One place of state, as the twin sees it at `place`: an overlay (overlayfs.rst) of this run's own upper and work over what is frozen.

    upper, work: None of a socket's folder, which is bound as it is.
    """

    place: str
    lower: Path
    upper: Path | None = None
    work: Path | None = None


class Frozen(Protocol):
    """State at one moment, for one run."""

    @property
    def layers(self) -> tuple[Layer, ...]: ...

    @property
    def took_ms(self) -> float: ...

    @property
    def processes(self) -> tuple[int, ...]:
        """Of the twin's own database servers on the host, which end with it."""

    def written(self) -> Effects:
        """What differs from what was frozen, when the run is over: its writes, and why these may not be all."""

    def another(self, folder: Path) -> Frozen | None:
        """The same state for a second run, with layers of its own in a new folder; None where it cannot be given twice (a database server's).

        It is of no use once the first was released, and releasing it does nothing.
        """

    def release(self) -> None:
        """Throw the copies away. Called once, when nothing uses them."""


class Snapshots(Protocol):
    """Freezes a server's state."""

    async def freeze(self, folder: Path) -> Frozen:
        """Freeze it now, into a folder that does not exist yet. CannotFreeze where that fails or takes too long."""
