"""One twin: its folder, its mounts, its processes, and one call put to it.

Unix: processes are bounded and found by a control group (`group.py`); while the twin waits for a call they are stopped (SIGSTOP).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from enforcer.privilege import libc
from enforcer.sandbox import bundle, closed_root, group, stamps, traces
from enforcer.sandbox.bundle import Layout
from enforcer.sandbox.frozen import Frozen, Snapshots
from enforcer.sandbox.mcp import Conversation, Era, Silent
from enforcer.sandbox.runsc import Runsc
from enforcer.sandbox.tree import Unfinished
from escrow.sandbox.effects import Effects
from escrow.sandbox.run import Outcome, Run
from escrow.sandbox.settings import SandboxSettings

P = ParamSpec("P")
T = TypeVar("T")
MS_SHARED = 1 << 20
"""include/uapi/linux/mount.h."""
OVERLAY = "redirect_dir=off,metacopy=off,index=off,xino=off"
"""So that the upper layer alone tells what was written."""
OVERHEAD_BYTES = 96 << 20
"""What gVisor itself takes beside its guest: about 60 MiB were measured for a Python server, guest included."""
OWN_THREADS = 256
THREADS_A_PROCESS = 4
"""Host threads that runsc has anyway, and for each process of the guest (pids.max counts threads). A guest that passes them ends its twin."""
STDERR_BYTES = 2048
MAX_LOG_BYTES = 256 << 20
"""Of the trace of a twin that follows a session."""
STAMP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Maker:
    """What all twins of a server share. folder: where each gets its own; Holdfast's, 0700. era: which the twins speak."""

    runsc: Runsc
    settings: SandboxSettings
    layout: Layout
    folder: Path
    era: Era = Era.SESSION

    def of(self, era: Era) -> Maker:
        """The same in another era."""
        return replace(self, era=era)


class Twin:
    """A running twin. Its owner ends it with `end`, whatever became of it."""

    def __init__(self, maker: Maker, name: str, processes: group.Group, process: asyncio.subprocess.Process, frozen: Frozen | None) -> None:
        self.maker, self.name, self._group, self._process = maker, name, processes, process
        self.folder = maker.folder / name
        assert process.stdin and process.stdout and process.stderr
        self.conversation = Conversation(process.stdin, process.stdout, maker.settings.answer_bytes)
        self._frozen = frozen
        self._said = b""
        self._followed = self._awake = False
        self._stamps: stamps.Stamps = {}
        self._listening = asyncio.create_task(self._listen(process.stderr))

    @classmethod
    async def start(cls, maker: Maker, image: Path | None = None, snapshots: Snapshots | None = None) -> Twin:
        """Start the server, with state from its first moment, or restore it from a template's image, without.

        Nothing here keeps the loop waiting for long: other calls' states are frozen meanwhile. NoGroups, CannotFreeze, OSError.
        """
        name = f"twin-{os.getpid()}-{secrets.token_hex(6)}"
        folder = maker.folder / name
        processes = frozen = None
        try:
            await _whole(_prepare, maker, folder)
            if snapshots is not None:
                frozen = await snapshots.freeze(folder / "frozen")
                _mount(maker.layout, folder, frozen)
            memory = (maker.settings.memory_mb << 20) + OVERHEAD_BYTES
            processes = await _whole(group.create, name, memory, OWN_THREADS + THREADS_A_PROCESS * maker.settings.processes)
            if frozen is not None:
                processes.adopt(frozen.processes)
            how = ["run"] if image is None else ["restore", f"--image-path={image}"]
            process = await asyncio.create_subprocess_exec(
                *processes.joining(maker.runsc.argv(*how, f"--bundle={folder}", name, log=folder / "log", sockets=maker.settings.sockets)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                limit=maker.settings.answer_bytes,
            )
        except BaseException:
            await asyncio.to_thread(_clear, folder, processes or group.find(name), maker.runsc, name)
            if frozen is not None:
                frozen.release()
            raise
        return cls(maker, name, processes, process, frozen)

    async def ready(self, seconds: float) -> None:
        """Wait until it answers. State that is mounted while it is still being restored may not be seen. Silent, TimeoutError."""
        await asyncio.wait_for(self.conversation.alive(self.maker.era), seconds)

    async def rehearse(self, seconds: float) -> None:
        """Have it use the memory that a call needs: after a restore each page costs a fault at its first use. Silent, TimeoutError."""
        await asyncio.wait_for(self.conversation.rehearse(self.maker.era), seconds)

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        while said := await stream.read(4096):
            self._said = (self._said + said)[-STDERR_BYTES:]

    @property
    def said(self) -> str:
        """The last of its standard error: untrusted."""
        return self._said.decode(errors="replace").strip()

    def running(self) -> bool:
        return self._process.returncode is None

    async def exited(self, seconds: float) -> None:
        """Wait for its own end."""
        await asyncio.wait_for(self._process.wait(), seconds)

    def schedule(self, policy: int) -> None:
        """See `Group.schedule`."""
        self._group.schedule(policy)

    def pause(self) -> None:
        self._awake = False
        self._group.signal(signal.SIGSTOP)

    def wake(self) -> None:
        """From now on somebody waits for it."""
        if not self._awake:
            self._awake = True
            self._group.weigh(group.FULL_WEIGHT)
            self.schedule(os.SCHED_OTHER)
            self._group.signal(signal.SIGCONT)

    def give(self, frozen: Frozen) -> None:
        """Mount a call's state. Whoever froze it releases it, after `end`; its database servers end with the twin. OSError."""
        self._group.adopt(frozen.processes)
        _mount(self.maker.layout, self.folder, frozen)

    async def run(self, request: bytes, name: str | int, frozen: Frozen, pooled: bool) -> Run:
        """Put one call to it, on state that it has until its end. name: the request's id. The twin is used up afterwards."""
        try:
            since = self._log().stat().st_size
            outcome, answer, why, took_ms = await self._put(request, name, frozen)
            effects = await asyncio.to_thread(self._final, frozen, since)
        except OSError as error:
            return Run("failed", why=f"the state could not be given to the twin: {error.strerror}", frozen_ms=frozen.took_ms, pooled=pooled)
        network = any(not connect.inside for connect in effects.connects)
        return Run(outcome, effects, answer, network, why, took_ms, frozen.took_ms, pooled)

    async def follow(self, request: bytes, name: str | int, frozen: Frozen, pooled: bool) -> Run:
        """Put a session's next call to it, on the state that its first call gave it, and leave it standing there. Not after a run that failed."""
        try:
            since = self._log().stat().st_size
            if since > MAX_LOG_BYTES:
                return Run("failed", why="the session's trace has grown too long")
            self.conversation.renew()
            outcome, answer, why, took_ms = await self._put(request, name, None if self._followed else frozen)
            self._awake = False
            still = await asyncio.to_thread(self._group.stop)
            effects = await asyncio.to_thread(self._new_effects, frozen, since)
        except (OSError, Unfinished) as error:
            return Run("failed", why=f"the session's state is not known: {error}", frozen_ms=frozen.took_ms)
        if not still:
            effects = replace(effects, incomplete=(*effects.incomplete, "the twin could not be stopped"))
        took = 0.0 if self._followed else frozen.took_ms
        self._followed = True
        return Run(outcome, effects, answer, any(not connect.inside for connect in effects.connects), why, took_ms, took, pooled)

    def _new_effects(self, frozen: Frozen, since: int) -> Effects:
        """What it did since the call before. Raises OSError, Unfinished."""
        traced, written = traces.read(self._log(), since), frozen.written()
        before, self._stamps = self._stamps, stamps.stamps(frozen.layers, time.monotonic() + STAMP_SECONDS)
        new = stamps.since(before, self._stamps, written.writes)
        writes = {write.path: write for write in (*traced.writes, *new)}
        return replace(traced, writes=tuple(writes.values()), incomplete=(*traced.incomplete, *written.incomplete))

    async def _put(self, request: bytes, name: str | int, frozen: Frozen | None) -> tuple[Outcome, bytes | None, str, float]:
        if frozen is not None:
            self.give(frozen)
        self.wake()
        begun = time.monotonic()
        try:
            answer = await asyncio.wait_for(self.conversation.call(request, name), self.maker.settings.run_ms / 1000)
        except TimeoutError:
            return "late", None, f"no answer within {self.maker.settings.run_ms} ms", (time.monotonic() - begun) * 1000
        except Silent as error:
            return "failed", None, str(error), (time.monotonic() - begun) * 1000
        return "answered", answer, "", (time.monotonic() - begun) * 1000

    def _log(self) -> Path:
        """gVisor's trace of the guest: one `runsc.log.TIME.boot.txt` in a folder of its own."""
        return next((self.folder / "log").glob("*.boot.txt"), self.folder / "log" / "boot.txt")

    def _final(self, frozen: Frozen, since: int) -> Effects:
        """What it did until it was stopped. It is never continued: its end, which takes longer, need not be waited for."""
        if not self._group.stop() and not self._group.kill():
            return Effects(incomplete=("the twin could not be stopped",))
        self._group.weigh(group.LOW_WEIGHT)
        return self._effects(frozen, since)

    def _effects(self, frozen: Frozen, since: int) -> Effects:
        """Attempts from the trace, and what became of the state from the state itself, which knows better."""
        traced, written = traces.read(self._log(), since), frozen.written()
        writes = {write.path: write for write in (*traced.writes, *written.writes)}
        return replace(traced, writes=tuple(writes.values()), incomplete=(*traced.incomplete, *written.incomplete))

    async def end(self) -> bool:
        """Kill its processes, take its mounts away, remove its folder. False where something of it is left."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()  # by itself: given up just as it starts, it may not be in its group yet
        gone = await asyncio.to_thread(_clear, self.folder, self._group, self.maker.runsc, self.name)
        if self._frozen is not None:
            await asyncio.to_thread(self._frozen.release)
        await self._process.wait()
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening
        # The pipes' transports, which else stay open until they are collected.
        self._process._transport.close()  # type: ignore[attr-defined]
        return gone


def _mount(laid: Layout, folder: Path, frozen: Frozen) -> None:
    for layer in frozen.layers:
        target = str(laid.source(folder, layer.place))
        if layer.upper is None:
            libc.mount(str(layer.lower), target, None, libc.MS_BIND)
        else:
            libc.mount("overlay", target, "overlay", 0, f"lowerdir={layer.lower},upperdir={layer.upper},workdir={layer.work},{OVERLAY}")


async def _whole(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """In a thread, and to its end where the caller is given up meanwhile: what it makes can be taken away then."""
    working = asyncio.create_task(asyncio.to_thread(work, *arguments, **named))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise


def _prepare(maker: Maker, folder: Path) -> None:
    """A twin's folder, and the mounts below which its state is mounted later. OSError."""
    bundle.write(maker.settings, maker.layout, folder)
    if maker.settings.sockets:
        closed_root.close(maker.settings.root, folder / "root", folder / "nothing", maker.layout.hidden)
    for number in range(len(maker.layout.parents)):
        source = str(folder / "state" / str(number))
        libc.mount(source, source, None, libc.MS_BIND)
        libc.mount("none", source, None, MS_SHARED)


def _clear(folder: Path, processes: group.Group | None, runsc: Runsc, name: str) -> bool:
    gone = processes is None or processes.kill()
    for target in _mounted(folder):
        with contextlib.suppress(OSError):
            libc.umount(target, libc.MNT_DETACH)
    if left := _mounted(folder):
        return not left  # a folder with a mount in it is never removed: its files may be somebody's
    shutil.rmtree(folder, ignore_errors=True)
    for path in runsc.folder.glob(f"*{name}*"):
        path.unlink(missing_ok=True)
    return gone and not folder.exists()


def sweep(maker: Maker) -> int:
    """End what processes of ours that died left behind. Returns how many twins could not be ended."""
    dead = [folder for folder in maker.folder.glob("twin-*-*") if not Path("/proc", folder.name.split("-")[1]).exists()]
    return sum(not _clear(folder, group.find(folder.name), maker.runsc, folder.name) for folder in dead)


def _mounted(folder: Path) -> list[str]:
    """Mounts at or below a folder, deepest first (proc_pid_mountinfo(5), field 5)."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((point for point in points if point.startswith(f"{folder}/")), key=len, reverse=True)
