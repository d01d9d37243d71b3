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
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

from enforcer.exactly import receive
from enforcer.privilege import jail, libc
from enforcer.sandbox import frames, way_back
from enforcer.sandbox.frames import Asked, Garbled, Phase
from enforcer.sandbox.kept import Kept
from enforcer.sandbox.plan import KeeperPlan
from enforcer.sandbox.way_back import NoOrder, Order, Told, read_order
from escrow.sandbox.run import Run
from escrow.sandbox.settings import SandboxSettings


def prepare(plan: KeeperPlan, channel: socket.socket) -> Callable[[], int | None]:
    """Cover what it is not to see. In mount namespaces of its own; raises OSError."""
    import concurrent.futures.thread  # noqa: F401

    held = _own(plan.folder)
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


def _own(folder: Path) -> int:
    """Made, opened and looked at in this order: who owns the folder around it could put another there in between."""
    folder.mkdir(mode=0o700, exist_ok=True)
    held = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(held)
    if found.st_uid != 0 or found.st_mode & 0o022:
        raise OSError(f"{folder} is not a folder that root alone can write")
    return held


def serve(channel: socket.socket, plan: KeeperPlan) -> int:
    """Answer questions until the other end closes."""
    channel.setblocking(False)
    asyncio.run(_Keeper(channel, plan).run())
    return 0


class _Keeper:
    def __init__(self, channel: socket.socket, plan: KeeperPlan) -> None:
        self._channel, self._plan = channel, plan
        self._writing = asyncio.Lock()
        self._kept = {name: Kept(name, settings, plan.folder, (*plan.hidden, plan.folder)) for name, settings in plan.servers.items()}
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._minor: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)  # the other end's closing is the order to end
        for name, kept in self._kept.items():
            way_back.sweep(self._plan.folder / name)
            kept.start()
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
                        await self._say(frames.shown(number, {"servers": [row for kept in self._kept.values() for row in kept.show()]}))
        except (OSError, Garbled, NoOrder):
            pass
        finally:
            await self._end()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._minor.add(task)
        task.add_done_callback(self._minor.discard)

    async def _way_back(self, number: int, server: str, order: Order) -> None:
        settings = self._plan.servers.get(server)
        if settings is None:
            found = Told(why="the policy has no twin of this server")
        else:
            found = await asyncio.to_thread(way_back.carry_out, self._plan.folder / server, settings, order)
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
        if kept is None:
            run = Run("absent", why="there is no twin of this server")
        else:
            try:
                run = await kept.run(asked, raw, frozen)
            except Exception as error:  # whatever an attacker found: this run is UNSURE, the next is another
                run = Run("failed", why=f"the run failed ({type(error).__name__})")
        await asyncio.gather(*said)
        await self._say(frames.ran(number, run))

    async def _say(self, whole: bytes) -> None:
        async with self._writing:
            with contextlib.suppress(OSError):  # its end shows where questions are read
                await asyncio.get_running_loop().sock_sendall(self._channel, whole)

    async def _end(self) -> None:
        for task in self._runs.values():
            task.cancel()
        await asyncio.gather(*self._runs.values(), *self._minor, return_exceptions=True)
        await asyncio.gather(*(kept.close() for kept in self._kept.values()), return_exceptions=True)


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
