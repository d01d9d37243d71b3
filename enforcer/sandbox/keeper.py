"""The keeper of the twins: a process that owns templates and pools, and runs a call in a twin when the daemon asks.

It is root, since it mounts state and starts runsc, and so it is kept from everything else: it reads no traffic but the calls it is handed as bytes
and the lines that twins write; it has mount and network namespaces of its own; the gate's store and keys are covered there (`plan.hidden`).

Two steps, as with every process of Holdfast: `prepare` covers and imports, `serve` answers until the other end closes or sends what is no question.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from enforcer.exactly import receive
from enforcer.privilege import jail, libc
from enforcer.sandbox import bundle, frames, group, runsc, template, way_back
from enforcer.sandbox.bundle import CannotBundle
from enforcer.sandbox.frames import Asked, Garbled, Phase
from enforcer.sandbox.mcp import STATELESS_ERA
from enforcer.sandbox.pool import Pool
from enforcer.sandbox.runsc import RunscError
from enforcer.sandbox.snapshots import StateSnapshots
from enforcer.sandbox.template import CannotBuild, NoTemplate
from enforcer.sandbox.twin import Maker
from enforcer.sandbox.way_back import NoOrder, Order, Told, read_order
from escrow.policy import Policy
from escrow.sandbox.run import Run
from escrow.sandbox.settings import SandboxSettings

AGAIN_SECONDS: Final = 30.0
"""After a server's twins could not be made, so long nothing is tried."""


@dataclass(frozen=True, slots=True)
class KeeperPlan:
    """servers: whose twins. folder: of templates and twins, root's own. hidden: files and folders that it is not to see."""

    servers: Mapping[str, SandboxSettings]
    folder: Path
    hidden: tuple[Path, ...] = ()


@dataclass(slots=True)
class Kept:
    """One server's twins. pool: None while there is none, and why says why."""

    settings: SandboxSettings
    pool: Pool | None = None
    why: str = "its template is not ready yet"
    template: dict[str, Any] = field(default_factory=dict)
    failed: int = 0


def plan_for(policy: Policy, state_dir: Path) -> KeeperPlan | None:
    """What a policy asks for; None where it names no twin. The store, and the files of keys, are hidden."""
    servers = {name: table.sandbox for name, table in policy.servers.items() if table.sandbox is not None}
    bearer, jury = policy.principal.bearer, policy.jury
    keys = [
        None if policy.tls is None else policy.tls.key,
        None if bearer is None else bearer.key_file,
        None if jury is None else jury.api_key_file,
    ]
    return KeeperPlan(servers, state_dir / "sandbox", (state_dir, *(Path(key) for key in keys if key is not None))) if servers else None


def prepare(plan: KeeperPlan, channel: socket.socket) -> Callable[[], int | None]:
    """Cover what it is not to see. In mount namespaces of its own; raises OSError."""
    import concurrent.futures.thread  # noqa: F401

    _own(plan.folder)
    held = os.open(plan.folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    for path in plan.hidden:
        if path.is_dir():
            libc.mount("tmpfs", str(path), "tmpfs", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC, "mode=0700,size=64k")
        elif path.exists():
            libc.mount("/dev/null", str(path), None, libc.MS_BIND)
    if any(plan.folder.is_relative_to(path) for path in plan.hidden):  # bring it back, alone
        plan.folder.mkdir(mode=0o700, parents=True)
        libc.mount(f"/proc/self/fd/{held}", str(plan.folder), None, libc.MS_BIND)
    os.close(held)
    return lambda: serve(channel, plan)


def _own(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise OSError(f"{folder} is not a folder that root alone can write")


def serve(channel: socket.socket, plan: KeeperPlan) -> int:
    """Answer questions until the other end closes."""
    channel.setblocking(False)
    asyncio.run(_Keeper(channel, plan).run())
    return 0


class _Keeper:
    def __init__(self, channel: socket.socket, plan: KeeperPlan) -> None:
        self._channel, self._plan = channel, plan
        self._writing = asyncio.Lock()
        self._kept = {name: Kept(settings) for name, settings in plan.servers.items()}
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._making: list[asyncio.Task[None]] = []
        self._minor: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)  # the other end's closing is the order to end
        for name in self._kept:
            self._clear(name)
            way_back.sweep(self._plan.folder / name)
            self._making.append(asyncio.create_task(self._make(name)))
        try:
            while True:
                number, phase, head_bytes, raw_bytes = frames.read_question(await receive(self._channel, frames.QUESTION.size))
                head, raw = await receive(self._channel, head_bytes), await receive(self._channel, raw_bytes)
                match phase:
                    case Phase.FREEZE:
                        self._begin(number, frames.read_asked(head), raw)
                    case Phase.DISCARD:
                        if (task := self._runs.get(number)) is not None:
                            task.cancel()
                    case Phase.WAY_BACK:
                        self._spawn(self._way_back(number, frames.read_asked(head).server, read_order(raw)))
                    case Phase.SHOW:
                        await self._say(frames.shown(number, {"servers": [self._show(name) for name in self._kept]}))
        except (OSError, Garbled, NoOrder):
            pass
        finally:
            await self._end()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._minor.add(task)
        task.add_done_callback(self._minor.discard)

    async def _way_back(self, number: int, server: str, order: Order) -> None:
        kept = self._kept.get(server)
        if kept is None:
            found = Told(why="the policy has no twin of this server")
        else:
            found = await asyncio.to_thread(way_back.carry_out, self._plan.folder / server, kept.settings, order)
        await self._say(frames.told(number, way_back.told_bytes(found)))

    def _begin(self, number: int, asked: Asked, raw: bytes) -> None:
        if number in self._runs or len(self._runs) >= 2 * frames.IN_FLIGHT:
            raise Garbled("a number twice, or too many runs")
        self._runs[number] = task = asyncio.create_task(self._answer(number, asked, raw))
        task.add_done_callback(lambda _: self._runs.pop(number, None))

    async def _answer(self, number: int, asked: Asked, raw: bytes) -> None:
        loop = asyncio.get_running_loop()
        said: list[asyncio.Task[None]] = []

        def frozen() -> None:
            said.append(loop.create_task(self._say(frames.frozen(number))))

        kept = self._kept.get(asked.server)
        if kept is None or kept.pool is None:
            run = Run("absent", why="there is no twin of this server" if kept is None else kept.why)
        elif asked.session:
            run = Run("absent", why='session = "replay" is not built: a twin that follows a session\'s earlier calls')
        elif asked.stateless is not (kept.template["era"] == STATELESS_ERA):
            run = Run("absent", why=f"the call is of another era than the template, which speaks MCP {kept.template['era']}")
        else:
            try:
                run = await kept.pool.run(raw, asked.id, frozen)
            except Exception as error:  # whatever an attacker found: this run is UNSURE, the next is another
                run = Run("failed", why=f"the run failed ({type(error).__name__})")
        await asyncio.gather(*said)
        await self._say(frames.ran(number, run))

    async def _say(self, whole: bytes) -> None:
        async with self._writing:
            with contextlib.suppress(OSError):  # its end shows where questions are read
                await asyncio.get_running_loop().sock_sendall(self._channel, whole)

    # --- templates and pools ---

    async def _make(self, name: str) -> None:
        """Have a pool, as soon as that is possible."""
        kept = self._kept[name]
        while kept.pool is None:
            try:
                await self._pool(name, kept)
            except (RunscError, CannotBundle, CannotBuild, OSError) as error:
                kept.why = str(error)[: frames.MAX_TEXT] or type(error).__name__
                kept.failed += 1
                await asyncio.sleep(AGAIN_SECONDS)

    async def _pool(self, name: str, kept: Kept) -> None:
        folder = self._plan.folder / name
        found = runsc.find(self._work(name, "runsc"))
        maker = Maker(found, kept.settings, bundle.layout(kept.settings, (*self._plan.hidden, self._plan.folder)), self._work(name, "twins"))
        snapshots = StateSnapshots(kept.settings)
        try:
            made = await asyncio.to_thread(template.load, maker, folder)
        except NoTemplate:
            made = await template.build(maker, folder, snapshots, lambda text: setattr(kept, "why", f"its template is being built: {text}"))
        kept.template = {"digest": made.digest, "era": made.era, "start_ms": made.start_ms, "restore_ms": made.restore_ms, "bytes": made.image_bytes}
        kept.pool, kept.why = Pool(maker, made, folder, snapshots), ""
        kept.pool.fill()

    def _work(self, name: str, what: str) -> Path:
        """A folder for this run of the keeper alone: one that is killed leaves it to the next."""
        path = self._plan.folder / name / "work" / what
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def _clear(self, name: str) -> None:
        """End what a keeper left that was killed."""
        work = self._plan.folder / name / "work"
        if (work / "twins").is_dir():
            for left in (work / "twins").iterdir():
                group.find(left.name).kill()
        shutil.rmtree(work, ignore_errors=True)

    def _show(self, name: str) -> dict[str, Any]:
        kept = self._kept[name]
        shown: dict[str, Any] = {"server": name, "why": kept.why, "template": kept.template or None, "pool": kept.settings.pool}
        if kept.pool is None:
            return {**shown, "waiting": 0}
        counts = kept.pool.counts
        times = sorted(counts.took_ms)
        return {
            **shown,
            "waiting": counts.waiting,
            "hits": counts.hits,
            "misses": counts.misses,
            "failures": counts.failures,
            "took_ms_median": round(times[len(times) // 2], 1) if times else None,
            "took_ms_p99": round(times[min(len(times) - 1, len(times) * 99 // 100)], 1) if times else None,
        }

    async def _end(self) -> None:
        for task in (*self._making, *self._runs.values()):
            task.cancel()
        await asyncio.gather(*self._making, *self._runs.values(), *self._minor, return_exceptions=True)
        await asyncio.gather(*(kept.pool.close() for kept in self._kept.values() if kept.pool is not None), return_exceptions=True)


def main() -> int:
    """Entry of a keeper that the daemon started itself (proxy mode, as root)."""
    parser = argparse.ArgumentParser(prog="enforcer.sandbox.keeper")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--hidden", type=Path, action="append", default=[])
    parser.add_argument("--servers", required=True)
    given = parser.parse_args()
    servers = {name: SandboxSettings.model_validate(settings) for name, settings in json.loads(given.servers).items()}
    jail.own_namespaces()
    with socket.socket(fileno=given.fd) as channel:
        return prepare(KeeperPlan(servers, given.folder, tuple(given.hidden)), channel)() or 0


if __name__ == "__main__":
    sys.exit(main())
