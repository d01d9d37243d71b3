"""The state of one call: frozen by `state.freezing`, given as overlays, and read again by `overlay.difference`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from enforcer.sandbox import overlay
from enforcer.sandbox.frozen import CannotFreeze, Layer
from enforcer.sandbox.state import freezing
from enforcer.sandbox.state.frozen import Frozen as Copies
from escrow.sandbox.effects import Effects, Write
from escrow.sandbox.settings import SandboxSettings

COMPARE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class FrozenState:
    """One call's copies and layers."""

    copies: Copies
    layers: tuple[Layer, ...]

    @property
    def took_ms(self) -> float:
        return self.copies.took_ms

    def written(self) -> Effects:
        writes: list[Write] = []
        doubts = [f"{path} could not be copied" for path in self.copies.left_out]
        for layer in self.layers:
            if layer.upper is not None:
                found = overlay.difference(str(layer.upper), str(layer.lower), layer.place, time.monotonic() + COMPARE_SECONDS)
                writes += found.writes
                doubts += found.incomplete
        return Effects(writes=tuple(writes), incomplete=tuple(doubts))

    def release(self) -> None:
        freezing.discard(self.copies)


@dataclass(frozen=True, slots=True)
class StateSnapshots:
    """Freezes a server's state, into the twin's own folder."""

    settings: SandboxSettings

    async def freeze(self, folder: Path) -> FrozenState:
        return await asyncio.to_thread(self._freeze, folder)

    def _freeze(self, folder: Path) -> FrozenState:
        until = time.monotonic() + self.settings.snapshot_ms / 1000
        copies = freezing.freeze(self.settings.state, folder, until)
        if copies.why:
            raise CannotFreeze(copies.why)
        layers = []
        for number, mount in enumerate(copies.mounts):
            if not mount.overlaid:
                layers.append(Layer(mount.at, mount.lower))
                continue
            upper, work = (folder.with_name(kind) / str(number) for kind in ("upper", "work"))
            upper.mkdir(parents=True)
            work.mkdir(parents=True)
            about = mount.lower.stat()
            upper.chmod(about.st_mode & 0o7777)
            layers.append(Layer(mount.at, mount.lower, upper, work))
        return FrozenState(copies, tuple(layers))
