"""One guarded server's twins, as the keeper has them: for each era of MCP that it speaks a template and a pool.

An era that nobody has called yet has a template and no twins: its pool is filled from its first call on, so that memory is taken for what is used.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from enforcer.sandbox import bundle, frames, group, runsc, template
from enforcer.sandbox.bundle import CannotBundle
from enforcer.sandbox.frames import Asked
from enforcer.sandbox.mcp import Era, NotSpoken
from enforcer.sandbox.pool import Pool
from enforcer.sandbox.replay import Sessions
from enforcer.sandbox.runsc import RunscError
from enforcer.sandbox.snapshots import StateSnapshots
from enforcer.sandbox.template import CannotBuild, NoTemplate, Template
from enforcer.sandbox.twin import Maker
from escrow.sandbox.run import Run
from escrow.sandbox.settings import SandboxSettings

AGAIN_SECONDS: Final = 30.0
"""After a template could not be made, so long nothing is tried."""


@dataclass(slots=True)
class Spoken:
    """One era. pool: None while there is none, and why says why. final: there will be none."""

    pool: Pool | None = None
    sessions: Sessions | None = None
    template: Template | None = None
    why: str = "its template is not ready yet"
    final: bool = False


class Kept:
    """See the module. Used from one event loop; `close` ends all that it started."""

    def __init__(self, name: str, settings: SandboxSettings, folder: Path, own: tuple[Path, ...]) -> None:
        """folder: of all servers' templates. own: Holdfast's folders, never seen inside."""
        self.name, self._settings, self._folder, self._own = name, settings, folder / name, own
        self._eras = {era: Spoken() for era in Era}
        self._making: asyncio.Task[None] | None = None

    def start(self) -> None:
        """End what a keeper left that was killed, and begin to make templates and pools."""
        work = self._folder / "work"
        if (work / "twins").is_dir():
            for left in (work / "twins").iterdir():
                group.find(left.name).kill()
        shutil.rmtree(work, ignore_errors=True)
        self._making = asyncio.create_task(self._make())

    @property
    def pools(self) -> dict[Era, Pool]:
        """Of the eras whose template is there."""
        return {era: spoken.pool for era, spoken in self._eras.items() if spoken.pool is not None}

    async def ready(self, seconds: float) -> bool:
        """Whether each era has its template or will have none, after waiting for it at most so long."""
        if self._making is not None:
            await asyncio.wait({self._making}, timeout=seconds)
        return all(spoken.pool is not None or spoken.final for spoken in self._eras.values())

    async def run(self, asked: Asked, raw: bytes, told: Callable[[], None]) -> Run:
        """A run of a call, in a twin of the call's own era. told: see `Pool.run`."""
        spoken = self._eras[Era.STATELESS if asked.stateless else Era.SESSION]
        if spoken.pool is None:
            return Run("absent", why=spoken.why)
        if asked.session and spoken.sessions is not None:
            run = await spoken.sessions.run(asked.session, raw, asked.id, told)
            return replace(run, learned=spoken.pool.learned(asked.tool))
        return await spoken.pool.run(raw, asked.id, told, asked.tool)

    async def _make(self) -> None:
        """Have pools, as soon as that is possible."""
        while waiting := [era for era, spoken in self._eras.items() if spoken.pool is None and not spoken.final]:
            for era in waiting:
                spoken = self._eras[era]
                try:
                    await self._pool(era, spoken)
                except NotSpoken as error:
                    spoken.why, spoken.final = str(error), True
                except (RunscError, CannotBundle, CannotBuild, OSError) as error:
                    spoken.why = str(error)[: frames.MAX_TEXT] or type(error).__name__
            if any(spoken.pool is None and not spoken.final for spoken in self._eras.values()):
                await asyncio.sleep(AGAIN_SECONDS)

    async def _pool(self, era: Era, spoken: Spoken) -> None:
        def said(text: str) -> None:
            spoken.why = f"its template is being built: {text}"

        found = runsc.find(self._work("runsc"))
        maker = Maker(found, self._settings, bundle.layout(self._settings, self._own), self._work("twins"), era)
        snapshots = StateSnapshots(self._settings)
        try:
            made = await asyncio.to_thread(template.load, maker, self._folder)
        except NoTemplate:
            made = await template.build(maker, self._folder, snapshots, said)
        spoken.template, spoken.pool, spoken.why = made, Pool(maker, made, self._folder, snapshots), ""
        spoken.sessions = Sessions(spoken.pool)

    def _work(self, what: str) -> Path:
        """A folder for this run of the keeper alone: one that is killed leaves it to the next."""
        path = self._folder / "work" / what
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def show(self) -> list[dict[str, Any]]:
        """Each era's template and pool, as JSON."""
        return [self._shown(era, spoken) for era, spoken in self._eras.items()]

    def _shown(self, era: Era, spoken: Spoken) -> dict[str, Any]:
        made = spoken.template
        kept = made and {"digest": made.digest, "start_ms": made.start_ms, "restore_ms": made.restore_ms, "bytes": made.image_bytes}
        shown = {"server": self.name, "era": era.value, "why": spoken.why, "template": kept, "pool": self._settings.pool}
        if spoken.pool is None:
            return {**shown, "waiting": 0}
        counts = spoken.pool.counts
        times = sorted(counts.took_ms)
        return {
            **shown,
            "waiting": counts.waiting,
            "sessions": 0 if spoken.sessions is None else spoken.sessions.count,
            "hits": counts.hits,
            "misses": counts.misses,
            "failures": counts.failures,
            "took_ms_median": round(times[len(times) // 2], 1) if times else None,
            "took_ms_p99": round(times[min(len(times) - 1, len(times) * 99 // 100)], 1) if times else None,
        }

    async def close(self) -> None:
        if self._making is not None:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)
        await asyncio.gather(*(spoken.sessions.close() for spoken in self._eras.values() if spoken.sessions is not None), return_exceptions=True)
        await asyncio.gather(*(spoken.pool.close() for spoken in self._eras.values() if spoken.pool is not None), return_exceptions=True)
