"""The daemon: one loop that wires relay, judges, store and control together. It handles every byte an attacker can choose.

`prepare` imports what `run` needs, before privileges are dropped; `run` never opens a socket or leaves its state folder.
"""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401  a lazy import of the codec machinery, which the jail would not find
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version as installed

import anyio

from enforcer import journal
from enforcer.companions import Companions
from enforcer.control.canaries import Canaries
from enforcer.control.people import People
from enforcer.control.server import ControlServer
from enforcer.control.tokens import Tokens
from enforcer.custody import Custody
from enforcer.dialing import client_tls, owner_of, proxied, steered, upstream_tls
from enforcer.evidence import EvidenceError, EvidenceLog, reading
from enforcer.helper.channel import HelperChannel
from enforcer.helper.messages import ChildEnded, ChildStarted, Enforcing, Fact, NotEnforcing, Stop
from enforcer.inherited import Inherited
from enforcer.judging import judges_of
from enforcer.jury.client import Jury
from enforcer.known import Known
from enforcer.observing import Observer
from enforcer.policies import Policies
from enforcer.relay.context import Context
from enforcer.relay.identity import Identity
from enforcer.relay.listener import Listener
from enforcer.relay.responder import Responder
from enforcer.relay.sessions import Sessions
from enforcer.relay.upstream import Upstream
from enforcer.sandbox.client import Twins
from enforcer.sandbox.local import missing
from enforcer.sandbox.plan import plan_for
from enforcer.scanner.judge import Scanner
from enforcer.scanner.outgoing import Outgoing
from enforcer.scanner.pool import WorkerPool
from enforcer.status import status
from enforcer.store import Store, StoreError
from enforcer.supervision import Window
from enforcer.watching import Watch
from enforcer.witness.client import WitnessClient
from escrow.evidence.entry import Bypassed, Event, Started, Stopped
from escrow.evidence.entry import Enforcing as EnforcingNow
from escrow.evidence.entry import NotEnforcing as NotEnforcingNow
from escrow.policy import Policy, PolicyError
from escrow.scanner_settings import ScannerSettings


def prepare() -> None:
    """Import and open all that needs files, as the user who may read them."""
    import uvloop  # noqa: F401

    _judges_of_the_relay()
    _version()


@cache
def _version() -> str:
    return installed("holdfast")


@cache
def _judges_of_the_relay() -> tuple[Scanner, Outgoing]:
    return Scanner(ScannerSettings(), with_model=False), Outgoing(ScannerSettings())


def run(inherited: Inherited) -> int:
    """Serve until told to stop. Returns the exit code; what keeps it from starting is said on standard error."""
    try:
        return anyio.run(Daemon(inherited).serve, backend="asyncio", backend_options={"use_uvloop": True})
    except (PolicyError, StoreError, EvidenceError) as error:
        print("holdfast: " + "\n".join(ascii(line)[1:-1] for line in str(error).splitlines()), file=sys.stderr, flush=True)
        return 1


class Daemon:
    def __init__(self, inherited: Inherited) -> None:
        self.inherited = inherited
        self.started = time.time()
        self.enforcing = False
        self.why = "starting"
        self.keeper = plan_for(inherited.policy, inherited.state_dir)
        self.companions = Companions(inherited.policy, self.keeper)
        self.twins: Twins | None = None
        self.stopping = asyncio.Event()
        self.channel: HelperChannel | None = None
        self.watch: Watch | None = None
        self.witness: WitnessClient | None = None
        self.observer: Observer | None = None
        self.listener: Listener | None = None

    async def serve(self) -> int:
        given = self.inherited
        self.stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        store = Store(given.state_dir)
        self.policies = Policies(given.policy, given.state_dir, given.policy_lines)
        self.log = EvidenceLog.open(given.state_dir, given.server, journal.publish)
        try:
            self.log.record(Started(_version(), given.mode, given.server, self.policies.current.version, os.getpid()))
            await self._judge(store)
            await self._serve()
        finally:
            if hasattr(self, "custody"):
                self.custody.close()
            self._note(Stopped("asked to stop" if self.stopping.is_set() else "failed"))
            self.log.close()
            store.close()
        return 0

    async def _judge(self, store: Store) -> None:
        """Judges and custody."""
        given, policy = self.inherited, self.policies.current
        scanner, outgoing = _judges_of_the_relay()
        scanner.settings = outgoing.settings = policy.scanner
        requests = Known()

        def watch(canaries: Mapping[str, str]) -> None:
            outgoing.watch(canaries)
            requests.clear()

        self.canaries = Canaries(given.state_dir / "canaries.json", watch)
        self.pool = WorkerPool(policy.scanner, scanner, self.companions.worker_lost)
        for worker in given.workers:
            self.pool.add(worker)
        self.jury = None if policy.jury is None else Jury(policy.jury, self.companions.jury_lost)
        if self.keeper is not None:
            why = missing() if given.helper is None else "" if given.mode == "enforce" else "nothing runs in a twin in observe mode"
            self.twins = Twins(self.keeper.servers, why, self.companions.keeper_lost)
        self.judges = judges_of(scanner, outgoing, requests, self.pool, self.jury, self.twins)
        self.custody = Custody(policy, given.server, store, self.judges, self.log)
        self.custody.records.recall(reading.last(given.state_dir / "evidence", 1000))
        self.policies.record = self.custody.policy_changing
        self.policies.listeners.append(self._policy_changed)
        await self.custody.open()

    async def _serve(self) -> None:
        """Relay or taps, and the control socket, until told to stop."""
        given = self.inherited
        if given.helper is not None:
            self.channel = HelperChannel(given.helper, self._heard)
        else:
            self.companions.start(self.pool, self.jury, self.twins)
        if given.taps:
            self._watch()
        responder = Responder()
        upstream = self._relay(responder) if given.mode != "observe" else None
        tokens = Tokens(given.state_dir / "tokens.json")
        people = People(self.custody, tokens, partial(status, self), responder.arm, self._asked_to_stop, self.policies, self.canaries, self.twins)
        self.window = Window(given, self.custody, self.policies, tokens, partial(status, self))
        control = ControlServer(people, frozenset({0, os.getuid()}))
        if self.listener is not None:
            await self.listener.start(given.listeners)
        await control.start(given.control)
        if self.channel is not None:
            self.channel.say_ready()
        else:
            self.enforcing, self.why = True, "proxy: only clients that use this address are guarded"
            self._note(EnforcingNow(self.why))
        self.window.start()
        await self.stopping.wait()
        self.window.close()
        control.close()
        self.companions.stop()
        if self.listener is not None and upstream is not None:
            await self.listener.stop()
            upstream.close()
        if self.witness is not None:
            self.witness.close()
        if self.watch is not None:
            await self.watch.close()
        if self.observer is not None:
            await self.observer.close()
        await self.pool.close()
        if self.jury is not None:
            await self.jury.close()
        if self.twins is not None:
            await self.twins.close()
        self.companions.close()

    def _relay(self, responder: Responder) -> Upstream:
        given, policy = self.inherited, self.policies.current
        if self.channel is not None:
            opener = steered(self.channel)
        else:
            assert given.upstream is not None
            opener = proxied(given.upstream)
        host = given.upstream.host if given.upstream else "localhost"
        upstream = Upstream(opener, policy.bounds.head_bytes, policy.bounds.connect_s, upstream_tls(given), host)
        look_up = None if given.diag is None else owner_of(given.diag)
        identity = Identity(policy.principal, None if given.bearer_key is None else given.bearer_key.decode(), look_up)
        self.context = Context(policy, given.server, self.custody, upstream, Sessions(), identity, responder)
        if self.witness is not None:  # from the first connection on: one that it does not know is a bypass
            self.context.note = upstream.note = self.witness.note
        self.listener = Listener(self.context, given.port if given.mode == "enforce" else None, client_tls(given.tls))
        return upstream

    def _watch(self) -> None:
        """The taps' process comes as a child of the helper's, and the witness's where there is a gate; where there is none, messages are judged here."""
        given, policy, records = self.inherited, self.policies.current, self.custody.records

        def record(found: Bypassed) -> None:
            with suppress(EvidenceError):  # shows in `status`
                records.bypassed(found)
            if found.certain:
                journal.bypass(found.what, found.where)

        if given.mode == "enforce":
            self.witness = WitnessClient(record)
        else:
            self.observer = Observer(self.judges, self.pool, records, lambda pid: watch.name(pid), policy.scanner.workers, policy.evidence.content)
            watch = self.watch = Watch(None, given.tls is not None, record, self.observer.take)

    def _note(self, event: Event) -> None:
        """Into the evidence log, where nothing waits for it; that it could not be written shows in `status`."""
        with suppress(EvidenceError):
            self.log.record(event)

    # --- the helper's facts ---

    def _heard(self, fact: Fact, passed: socket.socket | None) -> None:
        match fact:
            case Enforcing():
                self.enforcing, self.why = True, "new connections are steered into the gate"
                self._note(EnforcingNow(self.why))
            case NotEnforcing():
                if self.enforcing or self.why != fact.why:
                    self._note(NotEnforcingNow(fact.why))
                self.enforcing, self.why = False, fact.why
            case ChildStarted():
                if passed is not None:
                    self._join(fact, passed)
            case ChildEnded():
                pass  # whoever had its socket saw it end
            case Stop():
                self.stopping.set()

    def _join(self, child: ChildStarted, passed: socket.socket) -> None:
        match child.child:
            case "worker":
                self.pool.add(passed)
            case "window":
                self.window.add(passed)
            case "jury" if self.jury is not None:
                self.jury.add(passed)
            case "keeper" if self.twins is not None:
                self.twins.add(passed)
            case "taps" if (seen := self.witness or self.watch) is not None:
                seen.join_taps(passed)
            case "witness" if self.witness is not None:
                self.witness.join(passed)
            case _:  # not asked for
                passed.close()

    def _asked_to_stop(self) -> None:
        if self.channel is not None:
            self.channel.ask_stop()
        else:
            self.stopping.set()

    def _policy_changed(self, _old: Policy, new: Policy, _by: str) -> None:
        self.custody.policy = new
        if self.listener is not None:
            self.context.policy = new
