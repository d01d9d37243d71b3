"""Steering through a whole instance: addresses kept, the exemption in its real window, others' programs, bytes that are no requests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.kernel import namespace, steer
from tests.enforcer.helper.conftest import Start
from tests.enforcer.helper.world import A_IP4, A_IP6, B_IP4, B_IP6, Net, Server, join, net, until

pytestmark = pytest.mark.bpf
PORT = 7700


@pytest.fixture
def neighbour(guarded: Net) -> Iterator[Net]:
    with net("b") as made:
        join(guarded, made)
        yield made


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_over_loopback_the_client_is_seen_and_the_server_sees_the_address_that_was_asked_for(guarded: Net, server: Server, start: Start, address: str) -> None:
    start()
    plain = address.removeprefix("::ffff:")
    own = "127.0.0.1" if "." in plain else plain
    by_gate, by_server = guarded.ask(address, PORT)
    assert by_gate.split()[:3] == ["gate", own, plain]
    assert by_server.split()[:2] == ["server", plain], "never loopback for a client that is not: the server sees the original destination"
    assert by_gate.split()[3] == by_server.split()[2]


@pytest.mark.parametrize(("client", "address"), [(B_IP4, A_IP4), (B_IP6, A_IP6)])
def test_from_another_namespace_too(guarded: Net, neighbour: Net, server: Server, start: Start, client: str, address: str) -> None:
    start()
    by_gate, by_server = neighbour.ask(address, PORT)
    assert by_gate.split()[:3] == ["gate", client, address]
    assert by_server.split()[:2] == ["server", address]


def test_to_a_link_local_address(guarded: Net, neighbour: Net, server: Server, start: Start) -> None:
    start()
    shown = subprocess.run(["ip", "-n", guarded.name, "-o", "addr", "show", "veth0", "scope", "link"], check=True, capture_output=True, text=True)
    address = next(word for word in shown.stdout.split() if word.startswith("fe80")).partition("/")[0]
    until(lambda: "tentative" not in subprocess.run(["ip", "-n", guarded.name, "addr"], check=True, capture_output=True, text=True).stdout)
    interface = neighbour.run(lambda: socket.if_nametoindex("veth0"))
    answer = neighbour.ask(f"{address}%{interface}", PORT)
    assert len(answer) == 2, answer
    by_gate, by_server = answer
    assert by_gate.split()[0] == "gate" and by_gate.split()[2].startswith(address)
    assert by_server.split()[1].partition("%")[0] == address


def test_a_server_on_loopback_alone_stays_unreachable_from_outside(guarded: Net, neighbour: Net, start: Start) -> None:
    private = Server(guarded, PORT, "127.0.0.1")
    try:
        start()
        assert guarded.ask("127.0.0.1", PORT)[1].startswith("server ")
        assert "no upstream: UpstreamRefused" in neighbour.ask(A_IP4, PORT)[0]
        assert private.accepted == 1
    finally:
        private.close()


def test_the_exemption_cannot_be_borrowed_while_the_gate_connects(guarded: Net, neighbour: Net, start: Start) -> None:
    """The server's queue is full, so the gate's connection, and with it the exemption, stands for seconds."""
    with guarded.run(lambda: socket.create_server(("0.0.0.0", PORT), backlog=0)) as full:
        filling = [_begin(guarded, "127.0.0.1") for _ in range(4)]
        assert guarded.run(lambda: _pending(PORT)) >= 1
        instance = start()  # ends those; the queue stays full of what has been reset
        assert filling
        waiting = threading.Thread(target=lambda: _swallow(guarded))
        waiting.start()
        queued = {each.getsockname()[1] for each in filling}
        port = min(until(lambda: guarded.run(lambda: _connecting(PORT)) - queued))
        before = instance.control("counters")["counters"]
        for inside, source, to in ((guarded, "127.0.0.2", "127.0.0.1"), (neighbour, B_IP4, A_IP4)):
            with inside.connect(to, PORT, (source, port)) as borrower:
                assert borrower.getsockname()[1] == port
        after = instance.control("counters")["counters"]
        assert isinstance(before, dict) and isinstance(after, dict)
        assert after["steered"] - before["steered"] == 2, "both were given to the gate"
        assert port in guarded.run(lambda: _connecting(PORT)), "and the window was open all the time"
        full.close()  # the gate's own connection is refused now, and it says so
        waiting.join(15)
        for each in filling:
            each.close()


def test_many_at_once_and_under_syn_cookies(guarded: Net, server: Server, start: Start) -> None:
    guarded.sysctl("net.ipv4.tcp_syncookies", "2")
    instance = start()
    answers: list[list[str]] = []
    threads = [threading.Thread(target=lambda: answers.extend(guarded.ask("127.0.0.1", PORT) for _ in range(10))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 160
    assert all(len(answer) == 2 and answer[1].startswith("server ") for answer in answers)
    counted = instance.control("counters")["counters"]
    assert isinstance(counted, dict) and counted["no_gate"] == counted["failed_open"] == counted["unassignable"] == 0


@pytest.mark.parametrize(
    ("local", "remote"),
    [("127.0.0.1", "192.0.2.77"), ("192.0.2.77", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("::", "::"), ("127.0.0.1", "::1"), ("224.0.0.1", "224.0.0.1"),
     (B_IP4, B_IP4), ("127.0.0.1", B_IP4), ("fe80::1%7", "fe80::1%7"), ("127.0.0.1", "10.77.0.255"), (A_IP4, "255.255.255.255")],
)  # fmt: skip
def test_upstreams_lead_to_the_guarded_server_alone(guarded: Net, neighbour: Net, server: Server, start: Start, local: str, remote: str) -> None:
    other = Server(neighbour, PORT)
    try:
        said = start().control(f"upstream {local} {remote}")["upstream"]
        assert said == "UpstreamRefused: not an address of the guarded namespace"
        assert other.accepted == 0
    finally:
        other.close()


def test_a_refusal_by_the_server_is_a_refusal(guarded: Net, start: Start) -> None:
    assert start().control("upstream 127.0.0.1 127.0.0.1")["upstream"] == "UpstreamRefused: no connection to the server: Connection refused"


@pytest.mark.parametrize(
    "garbage",
    ["x", "{", '{"type":"nonesuch"}', '{"type":"accepting","more":1}', '{"type":"open_upstream","id":-1,"local":"::1","remote":"::1"}',
     '{"type":"open_upstream","id":"1","local":"::1","remote":"::1"}', '{"type":"enforcing"}', "[]", "\x00\x00", "x" * 5000],
)  # fmt: skip
def test_a_daemon_that_sends_what_is_no_request_is_replaced(guarded: Net, server: Server, start: Start, garbage: str) -> None:
    instance = start()
    first = instance.daemon()
    with contextlib.suppress(OSError):
        instance.control("garbage " + garbage)
    until(lambda: not Path(f"/proc/{first}").exists())
    until(lambda: not guarded.refuses("127.0.0.1", PORT))
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("gate ")
    assert "the daemon is killed: " in instance.errors()


def test_another_sk_lookup_program_is_reported_and_its_end_too(guarded: Net, server: Server, start: Start) -> None:
    instance = start()
    foreign = _foreign_program(guarded)
    until(lambda: any("another sk_lookup program" in fact for fact in instance.facts()), 1.5)
    os.close(foreign)
    until(lambda: instance.facts()[-1] == "enforcing", 1.5)


def test_it_does_not_start_beside_another_sk_lookup_program(guarded: Net, server: Server, start: Start) -> None:
    foreign = _foreign_program(guarded)
    try:
        instance = start(wait=False)
        assert instance.process.wait(10) == 1
        assert "another sk_lookup program" in instance.errors()
        assert guarded.ask("127.0.0.1", PORT)[0].startswith("server "), "nothing was attached"
    finally:
        os.close(foreign)


def _foreign_program(inside: Net) -> int:
    """Somebody else's: ours without pins, for a port nobody uses. The link's descriptor."""
    from enforcer.kernel import libbpf

    program = libbpf.Object(steer.OBJECT)
    program.load()
    link = libbpf.link_create(program.program_fd("steer"), namespace.find(inside.path).fd, libbpf.BPF_SK_LOOKUP)
    program.close()
    return link


def _begin(inside: Net, host: str) -> socket.socket:
    def body() -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        made.connect_ex((host, PORT))
        return made

    return inside.run(body)


def _pending(port: int) -> int:
    return sum(1 for line in Path("/proc/thread-self/net/tcp").read_text().splitlines() if f":{port:04X} " in line)


def _connecting(port: int) -> set[int]:
    """The local ports of connections to `port` that are being made (SYN_SENT)."""
    found = set()
    for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_rest = line.split()
        if state == "02" and remote.endswith(f":{port:04X}"):
            found.add(int(local.partition(":")[2], 16))
    return found


def _swallow(inside: Net) -> None:
    with contextlib.suppress(OSError):
        inside.ask("127.0.0.1", PORT)
