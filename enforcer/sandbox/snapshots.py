"""The state of one call: frozen by `state.freezing`, given as overlays, and read again by `overlay.difference`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path

from enforcer.sandbox import overlay
from enforcer.sandbox.frozen import CannotFreeze, Layer
from enforcer.sandbox.state import freezing
from enforcer.sandbox.state.frozen import Frozen as Copies
from escrow.sandbox.effects import Effects, Write
from escrow.sandbox.settings import Directory, SandboxSettings, Sqlite

COMPARE_SECONDS = 5.0
IN_MEMORY_BYTES = 4 << 20
"""Largest of a server's states that is copied into memory: a hundred small files take 1.5 ms there, and 6 to 50 on a busy disk."""
MEMORY = "mode=0700,size=64m"
"""Of the tmpfs for them. What does not fit is copied to disk."""
ON_DISK_SECONDS = 60.0
"""So long after a state was too large, or there was no room, memory is not tried."""


@dataclass(frozen=True, slots=True)
class FrozenState:
    """One call's copies and layers."""

    copies: Copies
    layers: tuple[Layer, ...]
    owner: bool = True

    @property
    def took_ms(self) -> float:
        return self.copies.took_ms

    @property
    def processes(self) -> tuple[int, ...]:
        return self.copies.processes

    def written(self) -> Effects:
        writes: list[Write] = []
        doubts = [f"{path} could not be copied" for path in self.copies.left_out]
        for layer in self.layers:
            if layer.upper is not None:
                found = overlay.difference(str(layer.upper), str(layer.lower), layer.place, time.monotonic() + COMPARE_SECONDS)
                writes += found.writes
                doubts += found.incomplete
        return Effects(writes=tuple(writes), incomplete=tuple(doubts))

    def another(self, folder: Path) -> FrozenState | None:
        layers = tuple(_over(layer, folder, number) for number, layer in enumerate(self.layers) if layer.upper is not None)
        return replace(self, layers=layers, owner=False) if len(layers) == len(self.layers) else None

    def release(self) -> None:
        if self.owner:
            freezing.discard(self.copies)


def _over(layer: Layer, folder: Path, number: int) -> Layer:
    """A layer with an upper and a work folder of its own."""
    upper, work = (folder / kind / str(number) for kind in ("upper", "work"))
    upper.mkdir(parents=True)
    work.mkdir(parents=True)
    upper.chmod(layer.lower.stat().st_mode & 0o7777)
    return replace(layer, upper=upper, work=work)


class StateSnapshots:
    """Freezes a server's state: in memory where it is small, else in the twin's own folder."""

    def __init__(self, settings: SandboxSettings, memory: Path | None = None) -> None:
        """memory: a folder of a tmpfs; None to use the disk alone."""
        self._settings, self._memory = settings, memory
        self._on_disk_until = 0.0

    async def freeze(self, folder: Path) -> FrozenState:
        return await asyncio.to_thread(self._freeze, folder)

    def _freeze(self, folder: Path) -> FrozenState:
        until = time.monotonic() + self._settings.snapshot_ms / 1000
        copies = self._in_memory(folder.parent.name, until) or freezing.freeze(self._settings.state, folder, until)
        if copies.why:
            raise CannotFreeze(copies.why)
        layers = []
        for number, mount in enumerate(copies.mounts):
            layer = Layer(mount.at, mount.lower)
            layers.append(_over(layer, folder.parent, number) if mount.overlaid else layer)
        return FrozenState(copies, tuple(layers))

    def _in_memory(self, name: str, until: float) -> Copies | None:
        if self._memory is None or time.monotonic() < self._on_disk_until or not all(isinstance(state, Directory | Sqlite) for state in self._settings.state):
            return None
        copies = freezing.freeze(self._settings.state, self._memory / name, until, IN_MEMORY_BYTES)
        if not copies.why:
            return copies
        self._on_disk_until = time.monotonic() + ON_DISK_SECONDS
        return None
