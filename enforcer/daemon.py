"""The daemon: one loop that wires relay, judges, store and control together. It handles every byte an attacker can choose.

`prepare` imports what `run` needs, before privileges are dropped; `run` never opens a socket or leaves its state folder.
"""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401  a lazy import of the codec machinery, which the jail would not find
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio

from enforcer.control.people import People
from enforcer.control.server import ControlServer
from enforcer.control.tokens import Tokens
from enforcer.custody import Custody, Judges
from enforcer.helper.channel import HelperChannel
from enforcer.helper.messages import Enforcing, Fact, NotEnforcing, Stop, WorkerEnded, WorkerStarted
from enforcer.inherited import Inherited, TlsMaterial
from enforcer.kernel import sockdiag
from enforcer.policies import Policies
from enforcer.relay.exchange import Context
from enforcer.relay.identity import Identity, Local
from enforcer.relay.listener import Listener
from enforcer.relay.responder import Responder
from enforcer.relay.sessions import Sessions
from enforcer.relay.upstream import Opener, Upstream
from enforcer.scanner.judge import Scanner
from enforcer.scanner.local import spawn_local
from enforcer.scanner.pool import WorkerPool
from enforcer.store import Store
from escrow import jsonrpc
from escrow.policy import Policy
from escrow.verdict import Verdict


def prepare() -> None:
    """Import and open all that needs files, as the user who may read them."""
    import uvloop  # noqa: F401

    _scanner_of_the_relay()


_prepared: list[Scanner] = []


def _scanner_of_the_relay() -> Scanner:
    if not _prepared:
        from escrow.scanner_settings import ScannerSettings

        _prepared.append(Scanner(ScannerSettings(), with_model=False))
    return _prepared[0]


def run(inherited: Inherited) -> int:
    """Serve until told to stop. Returns the exit code."""
    return anyio.run(_Daemon(inherited).serve, backend="asyncio", backend_options={"use_uvloop": True})


class _Daemon:
    def __init__(self, inherited: Inherited) -> None:
        self.inherited = inherited
        self.started = time.time()
        self.enforcing = False
        self.why = "starting"
        self.workers: dict[int, bool] = {}
        self.local: list[tuple[socket.socket, subprocess.Popen[bytes]]] = []
        self.stopping = asyncio.Event()
        self.channel: HelperChannel | None = None

    async def serve(self) -> int:
        given = self.inherited
        self.stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        store = Store(given.state_dir)
        self.policies = Policies(given.policy, given.state_dir, given.policy_lines)
        policy = self.policies.current
        scanner = _scanner_of_the_relay()
        scanner.settings = policy.scanner
        self.pool = WorkerPool(policy.scanner, scanner, self._worker_lost)
        for worker in given.workers:
            self.pool.add(worker)
        self.custody = Custody(policy, given.server, store, _judges(scanner, self.pool))
        self.policies.listeners.append(self._policy_changed)
        await self.custody.open()
        if given.helper is not None:
            self.channel = HelperChannel(given.helper, self._heard)
        else:
            for _ in range(policy.scanner.workers):
                self._spawn_worker()
        responder = Responder()
        upstream = Upstream(
            self._opener(), policy.bounds.head_bytes, policy.bounds.connect_s, _upstream_tls(given), given.upstream.host if given.upstream else "localhost"
        )
        look_up = None if given.diag is None else _look_up(given.diag)
        identity = Identity(policy.principal, None if given.bearer_key is None else given.bearer_key.decode(), look_up)
        context = Context(policy, given.server, self.custody, upstream, Sessions(), identity, responder)
        self.listener = Listener(context, given.port if given.mode == "enforce" else None, _client_tls(given.tls))
        people = People(self.custody, Tokens(given.state_dir / "tokens.json"), self._status, responder.arm, self._asked_to_stop, self.policies)
        control = ControlServer(people, frozenset({0, os.getuid()}))
        await self.listener.start(given.listeners)
        await control.start(given.control)
        if self.channel is not None:
            self.channel.say_ready()
        else:
            self.enforcing, self.why = True, "proxy: only clients that use this address are guarded"
        await self.stopping.wait()
        control.close()
        await self.listener.stop()
        upstream.close()
        await self.pool.close()
        for sock, process in self.local:
            sock.close()
            process.kill()
            process.wait()
        self.custody.close()
        store.close()
        return 0

    # --- the helper's facts ---

    def _heard(self, fact: Fact, passed: socket.socket | None) -> None:
        match fact:
            case Enforcing():
                self.enforcing, self.why = True, "new connections are steered into the gate"
            case NotEnforcing():
                self.enforcing, self.why = False, fact.why
            case WorkerStarted():
                if passed is not None:
                    self.pool.add(passed)
            case WorkerEnded():
                pass  # the pool saw its socket end
            case Stop():
                self.stopping.set()

    def _asked_to_stop(self) -> None:
        if self.channel is not None:
            self.channel.ask_stop()
        else:
            self.stopping.set()

    def _policy_changed(self, _old: Policy, new: Policy, _by: str) -> None:
        self.custody.policy = new

    # --- workers without a helper ---

    def _spawn_worker(self) -> None:
        sock, process = spawn_local(self.inherited.policy.scanner)
        self.local = [(s, p) for s, p in self.local if p.poll() is None]
        self.local.append((sock, process))
        self.pool.add(sock)

    def _worker_lost(self) -> None:
        if self.inherited.helper is None and not self.stopping.is_set():
            asyncio.get_running_loop().call_later(1.0, self._spawn_worker)

    # --- connections to the server ---

    def _opener(self) -> Opener:
        async def steered(client: socket.socket) -> socket.socket:
            # The address the client meant is our own address of its connection: the server sees the host talking to itself there.
            host = _plain(client.getsockname())
            assert self.channel is not None
            return await self.channel.open_upstream(host, host)

        async def plain(_client: socket.socket) -> socket.socket:
            target = self.inherited.upstream
            assert target is not None
            loop = asyncio.get_running_loop()
            problem: OSError | None = None
            for family, kind, proto, _, address in await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM):
                sock = socket.socket(family, kind, proto)
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, address)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return sock
                except OSError as error:
                    sock.close()
                    problem = error
            raise problem or OSError("no address")

        return steered if self.inherited.helper is not None else plain

    # --- views ---

    def _status(self) -> dict[str, Any]:
        given = self.inherited
        return {
            "mode": given.mode,
            "port": given.port,
            "netns": given.netns,
            "server": given.server,
            "enforcing": self.enforcing,
            "why": self.why,
            "pid": os.getpid(),
            "started_at": self.started,
            "workers": self.pool.workers,
            "connections": self.listener.connections,
            "counters": asdict(self.custody.counters),
            "lost_writes": self.custody.lost,
            **self.policies.status(),
            "policy_path": None if given.policy_path is None else str(given.policy_path),
            "state_dir": str(given.shown_state_dir),
            "weak_principals": given.policy.principal.require == "any",
            "upstream": None if given.upstream is None else f"{given.upstream.host}:{given.upstream.port}",
        }


def _judges(scanner: Scanner, pool: WorkerPool) -> Judges:
    def quick(message: jsonrpc.Message) -> Verdict | None:
        return scanner.quick(_document(message), len(message.raw))

    async def judge(message: jsonrpc.Message) -> Verdict:
        return quick(message) or await pool.judge(message.raw, "message")

    return Judges(judge, quick)


def _document(message: jsonrpc.Message) -> Any:
    """The message's JSON value without its envelope's id: what pointers are relative to."""
    if isinstance(message, jsonrpc.Response):
        return {"error" if message.is_error else "result": message.value}
    return {"method": message.method, "params": message.params}


def _plain(name: Any) -> str:
    """A socket name's address, IPv4-mapped ones as IPv4, link-local ones with their interface."""
    address = ipaddress.ip_address(str(name[0]).partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is not None:
        return str(mapped)
    return f"{address}%{name[3]}" if address.is_link_local and len(name) > 3 and name[3] else str(address)


def _look_up(diag: socket.socket) -> Any:
    def look_up(peer: Local, own: Local) -> tuple[int, int | None] | None:
        found = sockdiag.owner(diag, (ipaddress.ip_address(peer[0]), peer[1]), (ipaddress.ip_address(own[0]), own[1]))
        return None if found is None else (found.uid, found.cgroup)

    return look_up


def _client_tls(material: TlsMaterial | None) -> ssl.SSLContext | None:
    """TLS towards clients. load_cert_chain takes files only: they stand in memory, for this process alone, and only as long as it reads."""
    if material is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    with tempfile.TemporaryDirectory() as folder:
        cert, key = Path(folder, "cert"), Path(folder, "key")
        for path, data in ((cert, material.cert), (key, material.key)):
            path.touch(0o600)
            path.write_bytes(data)
        context.load_cert_chain(cert, key)
    return context


def _upstream_tls(given: Inherited) -> ssl.SSLContext | None:
    if given.upstream is not None and not given.upstream.tls:
        return None
    if given.upstream is None and given.tls is None:
        return None
    authority = given.tls.upstream_ca.decode() if given.tls is not None and given.tls.upstream_ca is not None else None
    context = ssl.create_default_context(cadata=authority)
    context.set_alpn_protocols(["http/1.1"])
    if given.upstream is None:
        context.check_hostname = False  # steered: the peer is this host's own port by address; the chain is still verified
    return context
