"""sock_diag against real connections in a namespace of their own."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from enforcer.kernel import netlink, sockdiag
from enforcer.kernel.errors import NotOurs
from tests.enforcer.helper.world import A_IP4, Net, join, net, until

pytestmark = pytest.mark.bpf
PORT = 7700


@pytest.fixture
def guarded() -> Iterator[Net]:
    with net("d") as made:
        yield made


@pytest.fixture
def diag(guarded: Net) -> Iterator[socket.socket]:
    with guarded.run(sockdiag.open_socket) as opened:
        yield opened


@pytest.fixture
def listener(guarded: Net) -> Iterator[socket.socket]:
    with guarded.run(lambda: socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)) as opened:
        yield opened


def end(name: tuple[str, int] | tuple[str, int, int, int]) -> tuple[sockdiag.Address, int]:
    address = ipaddress.ip_address(name[0].removeprefix("::ffff:"))
    return address, name[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_the_owner_of_a_local_client_is_found_by_the_two_ends(guarded: Net, diag: socket.socket, listener: socket.socket, host: str) -> None:
    with guarded.connect(host, PORT) as client, listener.accept()[0] as accepted:
        found = sockdiag.owner(diag, end(accepted.getpeername()), end(accepted.getsockname()))
        assert found is not None
        assert (found.uid, found.inode) == (os.getuid(), os.fstat(client.fileno()).st_ino)
        assert found.cgroup > 0


def test_the_uid_is_the_clients_own(guarded: Net, diag: socket.socket, listener: socket.socket) -> None:
    with guarded.connect("127.0.0.1", PORT) as client, listener.accept()[0] as accepted:
        os.fchown(client.fileno(), 4242, -1)
        found = sockdiag.owner(diag, end(accepted.getpeername()), end(accepted.getsockname()))
        assert found is not None and found.uid == 4242


def test_a_connection_that_is_not_here_has_no_owner(diag: socket.socket, listener: socket.socket) -> None:
    here, nobody = ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("127.0.0.9")
    assert sockdiag.owner(diag, (nobody, 1), (here, PORT)) is None
    assert sockdiag.owner(diag, (here, PORT), (nobody, 1)) is None, "a listener is no connection"


def test_every_live_connection_to_the_port_is_listed_and_none_else(guarded: Net, diag: socket.socket, listener: socket.socket) -> None:
    with guarded.run(lambda: socket.create_server(("127.0.0.1", 7799))), guarded.connect("127.0.0.1", 7799):
        with guarded.connect("127.0.0.1", PORT) as one, guarded.connect("::1", PORT) as two:
            listed = {each.remote_port for each in sockdiag.connections(diag, PORT)}
            assert listed == {one.getsockname()[1], two.getsockname()[1]}
    assert sockdiag.listens(diag, PORT) and not sockdiag.listens(diag, 7798)


def test_older_connections_are_reset_at_both_ends_and_newer_ones_are_not(guarded: Net, diag: socket.socket, listener: socket.socket) -> None:
    with guarded.connect("127.0.0.1", PORT) as old, guarded.connect("::1", PORT) as also_old, guarded.connect("127.0.0.1", PORT) as new:
        kept = new.getsockname()[1]
        destroyed = sockdiag.destroy_older(diag, PORT, lambda listed: [each for each in listed if each.remote_port != kept])
        assert destroyed == 2
        for reset in (old, also_old):
            with pytest.raises(ConnectionResetError):
                reset.recv(1)
        new.sendall(b"x")
        assert {each.remote_port for each in sockdiag.connections(diag, PORT)} == {kept}


def test_a_half_open_connection_is_destroyed(guarded: Net, diag: socket.socket, listener: socket.socket) -> None:
    """A SYN from an address that nobody answers at: the SYN-ACK is lost, and the server's end waits."""
    with net("e") as neighbour:
        join(guarded, neighbour)
        neighbour.run(lambda: _send_syn("10.77.0.9", A_IP4))
        listed = until(lambda: sockdiag.connections(diag, PORT))
    assert [each.state for each in listed] == [3], "SYN_RECV"
    assert sockdiag.destroy_older(diag, PORT, lambda listed: listed) == 1
    assert sockdiag.connections(diag, PORT) == []


def _send_syn(source: str, to: str) -> None:
    addresses = socket.inet_aton(source) + socket.inet_aton(to)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + addresses
    tcp = struct.pack("!HHIIBBHHH", 4321, PORT, 1, 0, 5 << 4, 2, 65535, 0, 0)
    total = sum(struct.unpack("!16H", addresses + struct.pack("!BBH", 0, 6, len(tcp)) + tcp))
    total = (total & 0xFFFF) + (total >> 16)
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(head + tcp[:16] + struct.pack("!H", check) + tcp[18:], (to, 0))


def test_what_cannot_be_ended_is_an_error(guarded: Net, diag: socket.socket, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_through: socket.socket, _one: sockdiag.Tcp) -> None:
        raise netlink.NetlinkError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(sockdiag, "destroy", refuse)
    with guarded.connect("127.0.0.1", PORT), pytest.raises(NotOurs, match="INET_DIAG_DESTROY"):
        sockdiag.destroy_older(diag, PORT, lambda listed: listed)


def test_an_unprivileged_process_may_look_up_but_not_destroy(guarded: Net, diag: socket.socket, listener: socket.socket) -> None:
    with guarded.connect("127.0.0.1", PORT), listener.accept()[0] as accepted:
        local, remote = end(accepted.getpeername()), end(accepted.getsockname())
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                found = sockdiag.owner(diag, local, remote)
                if found is None:
                    os._exit(2)
                sockdiag.destroy(diag, found)
                os._exit(3)
            except OSError as error:
                os._exit(0 if error.errno == errno.EPERM else 5)
            except BaseException:
                os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
