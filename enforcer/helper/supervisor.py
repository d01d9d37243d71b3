"""From the first daemon to the last trace: the helper's one loop. The order of the start and of the end is written here alone."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from enforcer.helper import children, listeners, material, traces, wire
from enforcer.helper.backoff import next_delay
from enforcer.helper.messages import Enforcing, NotEnforcing
from enforcer.helper.notify import notify
from enforcer.helper.programs import Programs, Run
from enforcer.helper.session import Kept, Session
from enforcer.helper.sights import TapPlan
from enforcer.helper.upstream import Opener
from enforcer.helper.window import Opened
from enforcer.inherited import Inherited
from enforcer.kernel import sockdiag, steer
from enforcer.kernel.errors import KernelError
from enforcer.kernel.namespace import Namespace
from enforcer.privilege import capabilities, identity, jail
from enforcer.privilege.confine import (
    DaemonConfinement,
    JuryConfinement,
    KeeperConfinement,
    TapsConfinement,
    WindowConfinement,
    WitnessConfinement,
    WorkerConfinement,
)
from enforcer.sandbox.plan import KeeperPlan, plan_for
from escrow.policy import Policy
from escrow.policy.places import Path as Place

log = logging.getLogger("holdfast.helper")

TICK_S = 0.4
FIRST_DAEMON_S = 30.0
STOP_GRACE_S = 5.0
TAPS_GRACE_S = 2.0
"""The taps take their probes away all at once, in a moment; the kernel, one after the other, takes seconds."""

KEEPER_GRACE_S = 4.0
"""The keeper ends its twins and takes their groups and mounts away."""


class DaemonFailed(Exception):
    """The first daemon ended, or never accepted: nothing was attached."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `start` made of the command line: everything read and checked.

    port: 0 where none is observed. taps: None: without.
    home: descriptor of the network namespace that `start` was called in; the window listens there, and the jury goes out from there.
    home_diag: NETLINK_SOCK_DIAG of it.
    """

    port: int
    namespace: Namespace
    policy: Policy
    policy_path: Path | None
    state_dir: Path
    runtime_dir: Path
    programs: Programs
    window: Opened
    home: int
    home_diag: socket.socket
    policy_lines: dict[Place, int] = field(default_factory=dict)
    taps: TapPlan | None = None


class Supervisor:
    """Built in the guarded namespace, in the running loop. steering: None in observe mode, where nothing is steered and nothing is held."""

    def __init__(self, plan: Plan, steering: steer.Steering | None, announce: Callable[[str], None]) -> None:
        self._plan = plan
        self._steering = steering
        self._announce = announce
        self._diag = sockdiag.open_socket()
        self._opener = None if steering is None else Opener(steering, plan.port, plan.policy.bounds.connect_s)
        self._mode: Literal["enforce", "observe"] = "observe" if steering is None else "enforce"
        self._keeper = None if steering is None else _keeper(plan)
        self._stopping = asyncio.Event()
        self._session: Session | None = None
        self._guarded = False
        self._problem: str | None = "observe mode: nothing is steered, nothing is held" if steering is None else "steering is not attached yet"

    async def run(self) -> None:
        """Until stopped. Raises KernelError, DaemonFailed: the start did not succeed, and nothing is left of it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        if self._plan.namespace.pidfd is not None:
            loop.add_reader(self._plan.namespace.pidfd, self._namespace_ended)
        watching: asyncio.Task[None] | None = None
        try:
            session = await self._first_daemon()
            if session is not None:
                watching = loop.create_task(self._watch())
                await self._keep_daemon(session)
        finally:
            notify("STOPPING=1")
            if watching is not None:
                watching.cancel()
            if self._session is not None:
                await self._session.stop(STOP_GRACE_S)
            # Whatever ends us but an order leaves the port refused, where it was guarded before.
            if self._steering is not None and (self._stopping.is_set() or not self._guarded):
                self._steering.detach()
            elif self._steering is not None:
                self._steering.abandon()

    async def _first_daemon(self) -> Session | None:
        """The daemon, once enforcing is live; None: stopped before."""
        session, gate = self._fork_daemon()
        if not await self._accepts(session):
            if self._stopping.is_set():
                return None
            how = f": {session.end.result()}" if session.end.done() else f" within {FIRST_DAEMON_S:g} s"
            raise DaemonFailed(f"the daemon did not come to accept connections{how}")
        if self._steering is not None:
            self._enforce(self._steering, gate)
        kept = capabilities.KEPT | (capabilities.TAPS if self._plan.taps is not None else {})
        capabilities.limit_to(kept if self._keeper is None else kept | capabilities.KEEPER)
        self._tell_ready(session)
        self._start_children(session)
        return session

    async def _accepts(self, session: Session) -> bool:
        """Wait until the daemon accepts; False: it ended, took too long, or we were stopped."""
        waiting = [asyncio.ensure_future(event.wait()) for event in (session.accepting, self._stopping)]
        await asyncio.wait({session.end, *waiting}, timeout=FIRST_DAEMON_S, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        return session.accepting.is_set() and not session.end.done() and not self._stopping.is_set()

    def _enforce(self, steering: steer.Steering, gate: tuple[socket.socket, ...]) -> None:
        """Fill the gate, attach, then end the connections that are older than that."""
        self._give(steering, gate)
        steering.note_steered(True)
        adopted = self._guarded = steering.attach()
        destroyed = sockdiag.destroy_older(self._diag, self._plan.port, steering.not_steered)
        steering.note_steered(False)
        log.info("port %d is guarded (%s; %d older connections ended)", self._plan.port, "taken over" if adopted else "attached", destroyed)
        self._problem = steering.problem()
        if self._problem:
            raise KernelError(self._problem)
        self._guarded = True

    def _tell_ready(self, session: Session) -> None:
        plan = self._plan
        self._report(session)
        ready = {"event": "ready", "mode": self._mode, "port": plan.port, "pid": os.getpid(), "daemon_pid": session.child.pid, "netns": plan.namespace.shown,
                 "netns_inode": plan.namespace.inode, "control": str(plan.runtime_dir / traces.CONTROL), "fail": plan.policy.fail,
                 "window": plan.window.place.url, "window_why": plan.window.place.why}  # fmt: skip
        self._announce(json.dumps(ready))
        notify("READY=1")

    async def _keep_daemon(self, session: Session) -> None:
        """Replace each daemon that ends, until stopped."""
        loop = asyncio.get_running_loop()
        delay_s, started_at = 0.0, loop.time()
        while not await self._stopped(session.end):
            delay_s = next_delay(delay_s, loop.time() - started_at)
            refused = "" if self._steering is None else "; connections are refused"
            log.error("the daemon ended: %s%s; another starts in %g s", session.end.result(), refused, delay_s)
            if await self._stopped(timeout_s=delay_s):
                return
            started_at = loop.time()
            session, gate = self._fork_daemon()
            if await self._accepts(session):
                if self._steering is not None:
                    self._give(self._steering, gate)
                self._report(session)
                self._start_children(session)
            else:
                _close(gate)
                await session.stop(0)

    async def _stopped(self, end: asyncio.Task[str] | None = None, timeout_s: float | None = None) -> bool:
        """Wait for the stop, for a daemon's end, or so long; whether it is the stop."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({stopping, end} if end else {stopping}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        return self._stopping.is_set()

    def _give(self, steering: steer.Steering, gate: tuple[socket.socket, ...]) -> None:
        """Steer to these, and keep no copy: with the daemon, the last one goes, and connections are refused."""
        steering.open_gate(gate)
        _close(gate)
        if not steering.gate_is_open():
            log.error("the daemon accepts, it says, but has closed its listeners: connections are refused")

    def _fork_daemon(self) -> tuple[Session, tuple[socket.socket, ...]]:
        plan = self._plan
        gate: tuple[socket.socket, ...] = ()
        if self._steering is not None:
            gate = listeners.gate()
            self._steering.announce_gate(gate)
        for listener in gate:
            listener.listen(listeners.BACKLOG)
        control_path = plan.runtime_dir / traces.CONTROL
        control = listeners.control(control_path)
        ours, theirs = wire.pair()
        named = f"port-{plan.port}" if plan.port else "observed"
        inherited = Inherited(
            mode=self._mode, policy=plan.policy, policy_path=plan.policy_path, port=plan.port, server=plan.policy.server.name or named,
            listeners=gate, control=control, state_dir=jail.STATE, shown_state_dir=plan.state_dir, control_path=control_path, helper=theirs, diag=self._diag,
            netns=plan.namespace.shown, window=plan.window.place, window_diag=plan.home_diag,
            policy_lines=plan.policy_lines, taps=plan.taps is not None,
        )  # fmt: skip
        keep = [theirs.fileno(), control.fileno(), self._diag.fileno(), plan.home_diag.fileno(), *(listener.fileno() for listener in gate)]

        def prepare() -> Run:
            return plan.programs.daemon(replace(inherited, tls=material.tls(plan.policy), bearer_key=material.bearer_key(plan.policy)))

        child = children.start("holdfast-daemon", prepare, DaemonConfinement(identity.daemon(), plan.state_dir), keep)
        theirs.close()
        control.close()
        self._session = Session(child, ours, self._steering, self._opener, self._stopping.set)
        return self._session, gate

    def _start_children(self, session: Session) -> None:
        """The processes beside the daemon. Each is forked once steering is live: none of them is needed for that."""
        plan = self._plan
        settings, jury, window = plan.policy.scanner, plan.policy.jury, plan.window.listeners
        session.keep(Kept("worker", WorkerConfinement(identity.worker()), lambda channel: lambda: plan.programs.worker(settings, channel)), settings.workers)
        if window:
            kept = tuple(listener.fileno() for listener in window)
            session.keep(Kept("window", WindowConfinement(identity.window()), lambda channel: lambda: plan.programs.window(channel, window), kept))
        if jury is not None:
            confinement = JuryConfinement(identity.jury(), plan.home)
            session.keep(Kept("jury", confinement, lambda channel: lambda: plan.programs.jury(jury, channel), (plan.home,)))
        if plan.taps is not None and self._steering is not None:
            port, tls = plan.port, plan.policy.tls is not None
            session.keep(
                Kept("witness", WitnessConfinement(identity.witness()), lambda channel: lambda: plan.programs.witness(port, tls, channel), packets=True)
            )
        if (taps := plan.taps) is not None:
            session.keep(
                Kept("taps", TapsConfinement(identity.taps()), lambda channel: lambda: plan.programs.taps(taps, channel), packets=True, grace_s=TAPS_GRACE_S)
            )

        if (keeper := self._keeper) is not None:
            session.keep(Kept("keeper", KeeperConfinement(), lambda channel: lambda: plan.programs.keeper(keeper, channel), grace_s=KEEPER_GRACE_S))

    async def _watch(self) -> None:
        while True:
            self._check()
            await asyncio.sleep(TICK_S)

    def _namespace_ended(self) -> None:
        if self._plan.namespace.pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._plan.namespace.pidfd)
        self._check()

    def _check(self) -> None:
        if self._steering is None:
            return
        try:
            problem = self._steering.problem()
        except (KernelError, OSError) as error:
            problem = f"whether steering holds cannot be seen: {error}"
        if problem == self._problem:
            return
        self._problem = problem
        log.log(logging.ERROR if problem else logging.INFO, "not enforcing: %s" if problem else "enforcing again", *([problem] if problem else []))
        if self._session is not None:
            self._report(self._session)

    def _report(self, session: Session) -> None:
        session.tell(NotEnforcing(why=self._problem[:512]) if self._problem else Enforcing())


def _keeper(plan: Plan) -> KeeperPlan | None:
    """The control socket is covered from the keeper, too."""
    found = plan_for(plan.policy, plan.state_dir)
    return None if found is None else replace(found, hidden=(*found.hidden, plan.runtime_dir))


def _close(sockets: tuple[socket.socket, ...]) -> None:
    for each in sockets:
        each.close()
