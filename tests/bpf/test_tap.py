"""The socket filter on real packets: what it copies, what it counts, and that it loses nothing silently."""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from enforcer.taps.bcc import found as bcc_found
from enforcer.taps.bcc import headers as bcc_headers
from escrow.events import Direction, Endpoint, Event, Lost, TcpFlags, TcpGap, TcpSlice
from tests.bpf.taprig import PORT, cable, connections, ip4, ip6, namespace, stream, tcp, wire

pytestmark = pytest.mark.bpf

NO_BCC = bcc_found()[0] is None or bcc_headers()[0] is None
IP4, IP6, VLAN, QINQ = 0x0800, 0x86DD, 0x8100, 0x88A8


@pytest.fixture(autouse=True)
def _namespace() -> Iterator[None]:
    with namespace():
        yield


def exchange(request: bytes, answer: bytes, family: int = socket.AF_INET, port: int = PORT) -> None:
    """One connection over loopback: the client sends, the server answers, both close."""
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((address, port), family=family) as listener:

        def serve() -> None:
            accepted, _ = listener.accept()
            with accepted:
                got = 0
                while got < len(request):
                    got += len(accepted.recv(1 << 20))
                accepted.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        with socket.create_connection((address, port)) as client:
            client.sendall(request)
            while client.recv(1 << 20):
                pass
        server.join(10)


def slices(events: list[Event]) -> list[TcpSlice]:
    return [each for each in events if isinstance(each, TcpSlice)]


def ended(events: list[Event]) -> bool:
    return sum(bool(each.flags & TcpFlags.FIN) for each in slices(events)) == 2


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_every_byte_of_a_loopback_connection_is_seen_once(family: int) -> None:
    request, answer = os.urandom(70_000), os.urandom(3 << 20)  # segments of 64 KiB: several slices each
    with wire() as (_tap, drained):
        exchange(request, answer, family)
        events = drained.until(ended)
        (connection,) = connections(events)
        assert connection.server == Endpoint("127.0.0.1" if family == socket.AF_INET else "::1", PORT)
        assert stream(events, connection, Direction.TO_SERVER) == request
        assert stream(events, connection, Direction.TO_CLIENT) == answer
        seen = sum(len(each.data) for each in slices(events))
        assert len(request) + len(answer) <= seen < 1.5 * (len(request) + len(answer))  # not twice; loopback, too, retransmits
        counts = drained.reader.counts()["tap"]
        assert counts.duplicate * 2 == counts.total
        assert counts.captured == len(slices(events))
        assert max(len(each.data) for each in slices(events)) == 16384


@pytest.mark.parametrize("size", [1, 127, 128, 129, 512, 513, 4095, 4096, 4097, 8192, 16383, 16384, 16385, 32768, 65000])
def test_a_segment_of_any_size_is_whole(size: int) -> None:
    payload = os.urandom(size)
    with wire() as (_tap, drained), cable() as send:
        send(ip4(tcp(payload)), IP4)
        events = slices(drained.until(lambda events: sum(len(each.data) for each in slices(events)) >= size))
        assert b"".join(each.data for each in events) == payload
        assert [each.sequence - 1000 for each in events] == list(range(0, size, 16384))
        assert all(each.missing == 0 for each in events)


@pytest.mark.parametrize(
    "packet, kind",
    [
        pytest.param(ip4(tcp(b"payload"), options=b"\x01" * 40), IP4, id="IPv4 with 40 bytes of options"),
        pytest.param(ip4(tcp(b"payload", options=b"\x01" * 40)), IP4, id="TCP with 40 bytes of options"),
        pytest.param(ip4(tcp(b"payload")) + bytes(30), IP4, id="padding after the packet is not payload"),
        pytest.param(
            ip6(tcp(b"payload"), ((0, b"\0" + bytes(6)), (60, b"\1" + bytes(14)), (43, b"\0" + bytes(6)))), IP6, id="IPv6 hop-by-hop, destination, routing"
        ),
        pytest.param(ip6(tcp(b"payload"), ((44, b"\0\0\0" + bytes(4)),)), IP6, id="IPv6 atomic fragment"),
        pytest.param(ip6(tcp(b"payload"), ((51, b"\4" + bytes(22)),)), IP6, id="IPv6 authentication header"),
        pytest.param(b"\0\x05" + IP4.to_bytes(2, "big") + ip4(tcp(b"payload")), VLAN, id="VLAN"),
        pytest.param(b"\x45\x00" + IP4.to_bytes(2, "big") + ip4(tcp(b"payload")), VLAN, id="VLAN whose tag looks like IPv4"),
        pytest.param(b"\0\x05" + VLAN.to_bytes(2, "big") + b"\0\x06" + IP6.to_bytes(2, "big") + ip6(tcp(b"payload")), QINQ, id="VLAN in VLAN"),
    ],
)
def test_headers_are_followed_to_the_payload(packet: bytes, kind: int) -> None:
    with wire() as (_tap, drained), cable() as send:
        send(packet, kind)
        (seen,) = slices(drained.until(slices))
        assert (seen.data, seen.missing, seen.sequence, seen.direction) == (b"payload", 0, 1000, Direction.TO_SERVER)
        assert seen.connection.client == Endpoint("fd00::1" if b"\xfd\0" in packet else "10.0.0.1", 40000)


def test_fragments_are_gaps_and_counted() -> None:
    with wire() as (_tap, drained), cable() as send:
        send(ip4(tcp(b"first"), fragment=0x2000), IP4)
        send(ip4(b"second fragment has no ports", fragment=0x0005), IP4)
        send(ip6(tcp(b"first"), ((44, b"\0\0\1" + bytes(4)),)), IP6)
        events = drained.until(lambda events: sum(each.records for each in events if isinstance(each, Lost)) >= 3)
        gaps = [each for each in events if isinstance(each, TcpGap)]
        assert [(each.reason, each.sequence, each.connection.client.address) for each in gaps] == [
            ("fragment", 1000, "10.0.0.1"),
            ("fragment", 1000, "fd00::1"),
        ]
        assert {each.reason for each in events if isinstance(each, Lost)} == {"fragment"}
        assert slices(events) == []


def test_headers_that_cannot_be_followed_are_counted() -> None:
    with wire() as (_tap, drained), cable() as send:
        send(ip6(tcp(b"far away"), ((60, b"\0" + bytes(6)),) * 12), IP6)
        events = drained.until(lambda events: events)
        assert [(type(each), each.reason) for each in events if isinstance(each, Lost)] == [(Lost, "headers")]


def test_ports_and_capture_limit_change_while_it_runs() -> None:
    with wire() as (tap, drained), cable() as send:
        send(ip4(tcp(b"x" * 5000)), IP4)
        tap.limit(100)
        send(ip4(tcp(b"y" * 5000)), IP4)
        tap.watch([4242])
        send(ip4(tcp(b"not watched any more")), IP4)
        send(ip4(tcp(b"z" * 10, source=4242, destination=99)), IP4)
        events = slices(drained.until(lambda events: len(slices(events)) >= 3))
        assert [(each.data, each.missing, each.direction) for each in events] == [
            (b"x" * 5000, 0, Direction.TO_SERVER),
            (b"y" * 100, 4900, Direction.TO_SERVER),
            (b"z" * 10, 0, Direction.TO_CLIENT),
        ]


def test_an_interface_that_comes_later_is_seen_too() -> None:
    with wire() as (_tap, drained):
        with cable("cable7") as send:
            send(ip4(tcp(b"new")), IP4)
            assert [each.data for each in slices(drained.until(slices))] == [b"new"]


def test_every_record_lost_to_a_full_ring_is_counted_exactly() -> None:
    sent, size = 400, 3000
    with wire(ring_bytes=64 << 10) as (_tap, drained), cable() as send:
        for number in range(sent):
            send(ip4(tcp(bytes(size), sequence=1 + number * size)), IP4)
        events = drained.read()
        lost = [each for each in events if isinstance(each, Lost)]
        assert {each.reason for each in lost} == {"ring full"}
        assert len(slices(events)) + sum(each.records for each in lost) == sent
        assert sum(len(each.data) for each in slices(events)) + sum(each.payload_bytes for each in lost) == sent * size
        assert 0 < len(slices(events)) < sent
        send(ip4(tcp(b"after")), IP4)  # it goes on
        assert slices(drained.until(lambda events: slices(events)[-1].data == b"after"))


def test_both_directions_agree_about_the_server_when_both_ports_are_watched() -> None:
    with wire(ports=(PORT, 40000)) as (_tap, drained), cable() as send:
        send(ip4(tcp(b"there", source=40000, destination=PORT)), IP4)
        send(ip4(tcp(b"back", source=PORT, destination=40000)), IP4)
        there, back = slices(drained.until(lambda events: len(slices(events)) >= 2))
        assert (there.connection.server.port, back.connection.server.port) == (PORT, PORT)
        assert (there.direction, back.direction) == (Direction.TO_SERVER, Direction.TO_CLIENT)


@pytest.mark.skipif(NO_BCC, reason="BCC or headers for it are missing (apt install python3-bpfcc linux-headers-amd64)")
def test_both_loaders_give_the_same_events() -> None:
    def plain(events: list[Event]) -> list[TcpSlice | TcpGap]:
        """Without times, and by stream: two CPUs may come to the two rings in another order."""
        kept = [dataclasses.replace(each, time_ns=0) for each in events if isinstance(each, TcpSlice | TcpGap)]
        return sorted(kept, key=lambda each: (repr(each.connection), each.direction.value, each.sequence, repr(each)))

    with wire("libbpf") as (_one, first), wire("bcc") as (_other, second), cable() as send:
        for size in (0, 1, 128, 129, 4096, 4097, 16384, 16385, 65000):
            send(ip4(tcp(os.urandom(size), sequence=size)), IP4)
            send(ip6(tcp(os.urandom(size)[:1000], flags=0x11), ((60, b"\0" + bytes(6)),)), IP6)
        send(ip4(tcp(b"first"), fragment=0x2000), IP4)
        send(b"\0\x05" + IP4.to_bytes(2, "big") + ip4(tcp(b"tagged")), VLAN)
        exchange(os.urandom(100_000), os.urandom(300_000))
        send(ip4(tcp(b"the end")), IP4)
        for each in (first, second):
            each.until(lambda events: any(one.data == b"the end" for one in slices(events)))
        assert plain(first.events) == plain(second.events)
        assert first.reader.counts()["tap"].lost == second.reader.counts()["tap"].lost
        assert len(plain(first.events)) > 30


def test_a_confined_process_without_capabilities_reads_the_rings_it_is_handed() -> None:
    """The daemon's user, seccomp and capabilities; the descriptors come over a Unix socket once all that is in force."""
    with wire() as (tap, _drained), cable() as send:
        send(ip4(tcp(b"for the daemon")), IP4)
        helper, daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        child = os.fork()
        if child == 0:
            _read_confined(daemon)
        daemon.close()
        with helper:
            helper.settimeout(10)
            assert helper.recv(100) == b"confined"
            socket.send_fds(helper, [b"."], [tap.loaded.maps["tap_ring"], tap.loaded.maps["tap_counters"]])
            assert helper.recv(100) == b"for the daemon, 1 captured; a file: Operation not permitted"
        assert os.waitpid(child, 0)[1] == 0


def _read_confined(channel: socket.socket) -> None:
    from enforcer.privilege import libc, syscalls
    from enforcer.taps.reader import Descriptors, Reader

    try:
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        syscalls.allow_daemon()
        channel.send(b"confined")
        _data, (ring, counters), _flags, _address = socket.recv_fds(channel, 1, 2)
        with select.epoll() as waiting:
            waiting.register(ring, select.EPOLLIN)
            waiting.poll(0)
        reader = Reader([Descriptors("tap", ring, counters, 16 << 20)])
        (seen,) = slices(reader.read(0)[0])
        try:
            os.chown("/", 0, 0)
            why = "was changed"
        except OSError as error:
            why = str(error.strerror)
        channel.send(seen.data + b", %d captured; a file: %s" % (reader.counts()["tap"].captured, why.encode()))
        os._exit(0)
    finally:
        os._exit(1)


def test_nothing_is_left_behind_by_a_kill() -> None:
    program = "from enforcer.taps.wire import WireTap; t = WireTap([18931]); print(t.loaded.programs['tap'], flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        assert "name tap " in _programs()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        holder.communicate()
    for _ in range(100):
        if "name tap " not in _programs():
            return
        select.select([], [], [], 0.05)
    raise AssertionError("the filter outlived its process")


def _programs() -> str:
    return subprocess.run(["bpftool", "prog", "list"], capture_output=True, text=True, timeout=10, check=True).stdout
