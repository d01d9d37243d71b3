"""bpf/steer.bpf.c in a real kernel: what it lets through, and to whom. The gate and the server are plain listeners."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from enforcer.helper import listeners
from enforcer.kernel import namespace, route, steer
from tests.enforcer.helper.world import A_IP4, A_IP6, B_IP4, Net, join, net, until

pytestmark = pytest.mark.bpf
PORT = 7700


@dataclass
class Stage:
    """Two joined namespaces; in `a`, port 7700 is steered from the listener `server` to `gate`."""

    a: Net
    b: Net
    steering: steer.Steering
    gate: tuple[socket.socket, ...]
    server: socket.socket

    def who_answers(self, connected: socket.socket) -> str:
        """Which of the listeners has this connection in its queue."""
        name = connected.getsockname()
        for kind, listener in (("server", self.server), *(("gate", each) for each in self.gate)):
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                accepted, peer = listener.accept()
                accepted.close()
                assert peer[1] == name[1]
                return kind
        return "nobody"

    def connect(self, inside: Net, host: str, source: tuple[str, int]) -> str:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def body() -> socket.socket:
            made = socket.socket(family)
            made.settimeout(5)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT: the port is used again
            made.bind(source)
            made.connect((host, PORT))
            return made

        with inside.run(body) as connected:
            return self.who_answers(connected)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with net("a") as a, net("b") as b, contextlib.ExitStack() as undo:
        join(a, b)
        steering = steer.Steering(namespace.find(a.path), PORT, fail_open=False)
        undo.callback(steering.detach)
        gate = a.run(listeners.gate)
        steering.announce_gate(gate)
        for each in gate:
            undo.callback(each.close)
            each.listen(16)
        server = undo.enter_context(a.run(lambda: socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)))
        steering.open_gate(gate)
        steering.attach()
        yield Stage(a, b, steering, gate, server)


def exempt(stage: Stage, address: str, port: int) -> bytes:
    """As the helper does for an upstream connection from `address` to itself."""
    parsed = ipaddress.ip_address(address)
    with stage.a.run(route.open_socket) as routes:
        interface = route.local_interface(routes, parsed)
    assert interface is not None
    key = steer.connection(parsed, port, parsed, PORT)
    stage.steering.exempt(key, interface)
    return key


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", A_IP4, A_IP6])
def test_new_connections_go_to_the_gate_and_exempted_ones_to_the_server(stage: Stage, address: str) -> None:
    assert stage.connect(stage.a, address, (address, 4001)) == "gate"
    key = exempt(stage, address, 4001)
    assert stage.connect(stage.a, address, (address, 4001)) == "server"
    assert stage.steering.end_exemption(key), "it was used"
    assert stage.connect(stage.a, address, (address, 4001)) == "gate"
    assert not stage.steering.end_exemption(key)


def test_an_exemption_cannot_be_borrowed_from_another_loopback_address(stage: Stage) -> None:
    exempt(stage, "127.0.0.1", 4002)
    before = stage.steering.counters()
    assert stage.connect(stage.a, "127.0.0.1", ("127.0.0.2", 4002)) == "gate"
    assert stage.connect(stage.a, "127.0.0.2", ("127.0.0.1", 4002)) == "gate"
    assert stage.connect(stage.a, "127.0.0.1", ("127.0.0.1", 4003)) == "gate"
    after = stage.steering.counters()
    assert (after.exempt - before.exempt, after.steered - before.steered) == (0, 3)
    assert stage.connect(stage.a, "127.0.0.1", ("127.0.0.1", 4002)) == "server", "it stood all the time"


def test_an_exemption_cannot_be_borrowed_from_another_namespace(stage: Stage) -> None:
    exempt(stage, A_IP4, 4004)
    exempt(stage, "127.0.0.1", 4004)
    assert stage.connect(stage.b, A_IP4, (B_IP4, 4004)) == "gate"
    assert stage.steering.counters().exempt == 0
    assert stage.connect(stage.a, A_IP4, (A_IP4, 4004)) == "server"


def test_a_forged_packet_with_the_exempted_addresses_does_not_pass(stage: Stage) -> None:
    """From the wire, from our own address, by the right interface: the kernel drops it as a martian before the lookup."""
    exempt(stage, A_IP4, 4005)
    mac = stage.a.run(lambda: _mac("veth0"))

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("veth0", 0))
            for source in (A_IP4, "10.77.0.9"):
                raw.send(mac + _mac("veth0") + b"\x08\x00" + _syn(source, 4005, A_IP4, PORT))

    stage.b.run(send)
    until(lambda: stage.steering.counters().steered == 1)  # the second: such packets do arrive
    assert stage.steering.counters().exempt == 0


def test_an_exemption_by_another_interface_than_the_addresss_own_does_not_pass(stage: Stage) -> None:
    key = steer.connection(ipaddress.ip_address(A_IP4), 4007, ipaddress.ip_address(A_IP4), PORT)
    stage.steering.exempt(key, 999)
    assert stage.connect(stage.a, A_IP4, (A_IP4, 4007)) == "gate"


def test_without_a_gate_connections_are_refused(stage: Stage) -> None:
    for each in stage.gate:
        each.close()
    assert stage.a.refuses("127.0.0.1", PORT) and stage.a.refuses("::1", PORT) and stage.b.refuses(A_IP4, PORT)
    assert stage.steering.counters().no_gate == 3


def test_the_gates_own_ports_are_nobodys_to_connect_to(stage: Stage) -> None:
    for host, each in zip(("127.0.0.1", "::1"), stage.gate, strict=True):
        assert stage.a.refuses(host, each.getsockname()[1])
    assert stage.steering.counters().gate_port == 2


def test_the_same_number_at_another_address_is_not_ours(stage: Stage) -> None:
    port = stage.gate[0].getsockname()[1]
    with stage.a.run(lambda: socket.create_server((A_IP4, port))), stage.b.connect(A_IP4, port):
        assert stage.steering.counters().gate_port == 0


def test_other_ports_and_udp_are_let_alone(stage: Stage) -> None:
    with stage.a.run(lambda: socket.create_server(("127.0.0.1", 7799))), stage.a.connect("127.0.0.1", 7799):
        pass
    with stage.a.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as there:
        there.bind(("127.0.0.1", PORT))
        there.settimeout(5)
        with stage.a.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as here:
            here.sendto(b"x", ("127.0.0.1", PORT))
            assert there.recv(1) == b"x"
    assert sum(getattr(stage.steering.counters(), name) for name in steer.Counters.__slots__) == 0


def test_both_lookups_of_a_syn_cookie_connection_agree(stage: Stage) -> None:
    stage.a.sysctl("net.ipv4.tcp_syncookies", "2")
    for port in range(4100, 4150):
        assert stage.connect(stage.a, "127.0.0.1", ("127.0.0.1", port)) == "gate"
        key = exempt(stage, A_IP4, port)
        assert stage.connect(stage.a, A_IP4, (A_IP4, port)) == "server"
        stage.steering.end_exemption(key)


def _mac(interface: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        address: bytes = raw.getsockname()[4]
        return address


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def _syn(source: str, source_port: int, to: str, port: int) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton(to)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0)
    head = head[:10] + struct.pack("!H", _checksum(head + addresses)) + addresses
    tcp = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, 2, 65535, 0, 0)
    check = _checksum(addresses + struct.pack("!BBH", 0, 6, len(tcp)) + tcp)
    return head + tcp[:16] + struct.pack("!H", check) + tcp[18:]
