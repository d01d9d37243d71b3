"""kill -9 of each process at each stage of a call whose result is held: nothing is lost that was held, and nothing comes out that was not approved."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.faults import world
from tests.faults.upstream import CLEAN
from tests.faults.world import Client, Upstream, control, items, new_item, processes, request, until
from tests.real import gate as gates
from tests.real.conftest import FULL
from tests.real.gate import Gate
from tests.real.process import free_port

STAGES = ("arriving", "being judged", "running", "answer arriving", "result being judged", "held", "approved, being sent", "delivered")
HELD = STAGES.index("held")
BIG = 5 << 20
"""An answer no socket buffer takes whole."""
LARGE_ARGUMENT = "a plain word or two " * 400
"""Arguments past `outgoing_quick_bytes`: only a worker judges them."""
QUICK = 20_000
"""A result past `quick_bytes`: only a worker judges it."""
_numbers = itertools.count(1)


@dataclass(slots=True)
class Scene:
    """A call brought to a stage. before: items that stood there before it."""

    gate: Gate
    server: Upstream
    stage: str
    key: str = field(default_factory=lambda: f"k{next(_numbers)}")
    item: dict[str, Any] | None = None
    client: Client = field(init=False)
    asked: bytes = b""
    before: set[str] = field(default_factory=set)

    def play(self) -> None:
        """Up to the stage, and not a step further."""
        self.server.stay()
        self.before = set(items(self.gate))
        tool = {"running": "slow", "result being judged": "slow", "answer arriving": "half", "approved, being sent": "patient", "delivered": "patient"}.get(
            self.stage, "hostile"
        )
        arguments: dict[str, Any] = {"key": self.key}
        if self.stage == "being judged":
            arguments["note"] = LARGE_ARGUMENT
        if self.stage == "result being judged":
            arguments["size"] = QUICK
        if self.stage == "approved, being sent":
            arguments["size"] = BIG
        self.asked = request(tool, **arguments)
        self.client = Client(self.gate.port, receive_bytes=4096 if self.stage == "approved, being sent" else None)
        if self.stage == "arriving":
            self.client.send(self.asked[: len(self.asked) // 2])
            return
        if self.stage == "being judged":
            self._stop_workers()
        self.client.send(self.asked)
        control(self.gate, "status")  # the daemon's loop has turned since
        if self.stage == "being judged":
            assert self.server.runs(self.key) == 0
            return
        until(lambda: self.server.runs(self.key) == 1, "the call did not run")
        if self.stage == "running":
            return
        if self.stage == "answer arriving":
            until(lambda: self.server.halves(self.key), "no half of an answer")
            return
        if self.stage == "result being judged":
            self._stop_workers()
            self.server.go()
            until(lambda: self.server.said(self.key) == 1, "it did not answer")
            control(self.gate, "status")
            assert items(self.gate).keys() == self.before
            return
        self.item = new_item(self.gate, self.before)
        if self.stage == "held":
            return
        assert world.approve(self.gate, self.item)["state"] == "approved"
        if self.stage == "delivered":
            assert world.leaked(self.client.answer())
            until(lambda: self._state() == "delivered", "it was not said to be delivered")
        else:
            until(lambda: self.client.sock.recv(1), "nothing was sent")

    def _state(self) -> str:
        assert self.item is not None
        return str(items(self.gate)[self.item["id"]]["state"])

    def _stop_workers(self) -> None:
        world.signal_all(until(lambda: processes(self.gate, "worker"), "no worker"), signal.SIGSTOP)

    def aftermath(self, killed: str) -> None:
        """What must hold once everything that is to be there is there again."""
        self.server.go()
        at, item = STAGES.index(self.stage), self.item
        world.signal_all(processes(self.gate, "worker"), signal.SIGCONT)
        if killed not in ("daemon", "helper") and self.stage == "arriving":
            self.client.send(self.asked[len(self.asked) // 2 :])
        late = b""
        if self.stage != "delivered":
            late = self.client.answer()
            if self.stage != "approved, being sent":
                assert not world.leaked(late, self.client.got), "somebody saw what nobody had approved"
        self.client.close()
        world.assert_served(self.gate.port)
        if item is None:
            self._comes_again()
            return
        state = "held" if at == HELD else "approved" if self.stage == "approved, being sent" else "delivered"
        if state == "approved" and killed not in ("daemon", "helper"):  # this client may have read it all after the fault
            state = "delivered" if len(late) > BIG else "approved"
        until(lambda: self._state() == state, f"what was {state} is {self._state()}")
        if state == "held":
            world.approve(self.gate, item)
        if state != "delivered":
            with Client(self.gate.port) as again:
                assert world.leaked(again.send(self.asked).answer()), "what was approved does not come out"
            until(lambda: self._state() == "delivered", "it was given and is not delivered")
        assert self.server.runs(self.key) == 1, "the tool ran again for what had been held"

    def _comes_again(self) -> None:
        """It was not held yet. The same call ends in escrow, and only an approval gets it out."""
        if not (items(self.gate).keys() - self.before):
            with Client(self.gate.port) as again:
                assert not world.leaked(again.send(self.asked).answer())
        item = new_item(self.gate, self.before)
        world.approve(self.gate, item)
        with Client(self.gate.port) as last:
            assert world.leaked(last.send(self.asked).answer())
        assert 1 <= self.server.runs(self.key) <= 2


def kill(gate: Gate, server: Upstream, victim: str) -> None:
    """kill -9, and whoever does not come back by itself is started again."""
    if victim == "upstream":
        server.kill()
        server.start()
        until(lambda: CLEAN.encode() in world.ask_once(gate.port, "clean"), "the server does not come back")  # steered, only the gate can tell
        return
    dead = until(lambda: processes(gate, victim), f"there is no {victim}")
    old = set(dead)
    own = victim == "helper" or (victim == "daemon" and gate.program.process.pid in old)
    stopped, children = processes(gate, "worker"), world.children(gate)
    world.signal_all(dead, signal.SIGKILL)
    world.signal_all(stopped, signal.SIGCONT)  # those that a scene stopped, so that they see their daemon's end
    if own:
        gate.program.process.wait(timeout=world.LIMIT_S)
        until(lambda: not any(world.lives(pid) for pid in children), "processes outlive their daemon")
        gate.start_again()
        return
    until(lambda: not old & set(processes(gate, victim)), f"the {victim} lives")
    if victim == "daemon":
        until(lambda: _answers(gate), "no other daemon came")
    else:
        until(lambda: processes(gate, victim), f"no other {victim} came")


def _answers(gate: Gate) -> bool:
    try:
        return bool(control(gate, "status")["enforcing"])
    except (OSError, ValueError):
        return False


def play(gate: Gate, server: Upstream, stage: str, victim: str) -> None:
    scene = Scene(gate, server, stage)
    scene.play()
    kill(gate, server, victim)
    scene.aftermath(victim)
    gate.holdfast("audit", "verify", "--allow-tail")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with world.upstream(tmp_path_factory.mktemp("upstream") / "server") as running:
        yield running


@pytest.fixture(scope="module")
def proxied(server: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with gates.run(tmp_path_factory.mktemp("proxied"), server.port, policy=world.ONE_WORKER, mcp_listen=f"127.0.0.1:{free_port()}") as running:
        yield running


@pytest.fixture(scope="module")
def steered(server: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with gates.run(tmp_path_factory.mktemp("steered"), server.port, steer=True, policy=world.ONE_WORKER, mcp_listen=f"127.0.0.1:{free_port()}") as running:
        yield running


PROXIED = [
    ("result being judged", "daemon"),
    ("approved, being sent", "daemon"),
    ("result being judged", "worker"),
    ("held", "window"),
    ("running", "upstream"),
    ("answer arriving", "upstream"),
    ("held", "upstream"),
]
STEERED = [("held", "helper"), ("approved, being sent", "daemon")]


@pytest.mark.parametrize(("stage", "victim"), [*itertools.product(STAGES, ("daemon", "worker", "window", "upstream"))] if FULL else PROXIED)
def test_nothing_is_lost_and_nothing_let_out_through_a_proxy(stage: str, victim: str, proxied: Gate, server: Upstream) -> None:
    play(proxied, server, stage, victim)


@pytest.mark.bpf
@pytest.mark.parametrize(("stage", "victim"), [*itertools.product(STAGES, ("helper", "daemon", "worker", "window", "upstream"))] if FULL else STEERED)
def test_nothing_is_lost_and_nothing_let_out_where_connections_are_steered(stage: str, victim: str, steered: Gate, server: Upstream) -> None:
    play(steered, server, stage, victim)
