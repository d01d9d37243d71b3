"""TCP connections as the kernel knows them (sock_diag(7), include/uapi/linux/inet_diag.h): list, destroy, whose is this one.

`owner` needs no privilege: the daemon asks it through a socket that was opened in the guarded namespace. The kernel checks that
both who opened a netlink socket and who uses it may destroy, so that socket cannot be used for more.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from enforcer.kernel import netlink
from enforcer.kernel.errors import NotOurs

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21
_INET_DIAG_CGROUP_ID = 21
_NO_COOKIE = b"\xff" * 8

_SOCKET_ID = struct.Struct("!HH16s16s")  # inet_diag_sockid, network byte order; then =I interface, 8 bytes cookie
_REQUEST = struct.Struct("=BBBBI")  # inet_diag_req_v2: family, protocol, ext, pad, states; then the id
_ANSWER_HEAD = struct.Struct("=BBBB")  # inet_diag_msg: family, state, timer, retrans; then the id
_ANSWER_TAIL = struct.Struct("=IIIII")  # expires, rqueue, wqueue, uid, inode
_ID_BYTES = _SOCKET_ID.size + 12
_ANSWER_BYTES = _ANSWER_HEAD.size + _ID_BYTES + _ANSWER_TAIL.size

_ESTABLISHED = 1
_FIN_WAIT2 = 5
LISTEN = 10
# Every state but TIME_WAIT (6) and CLOSE (7), which carry nothing any more, and LISTEN (10). Includes NEW_SYN_RECV (12).
_ALIVE = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11, 12))

_SWEEP_LIMIT_S = 3.0


@dataclass(frozen=True, slots=True)
class Tcp:
    """One TCP connection, from one end. inode is 0 when no process holds it (still in an accept queue, or closed).

    cgroup: id of the cgroup2 the socket was made in; 0 where the kernel does not say.
    """

    local: Address
    local_port: int
    remote: Address
    remote_port: int
    state: int
    uid: int
    inode: int
    cgroup: int
    family: int
    id: bytes


def open_socket() -> socket.socket:
    return netlink.open_socket(netlink.NETLINK_SOCK_DIAG)


def connections(through: socket.socket, local_port: int) -> list[Tcp]:
    """Every live connection whose local port is this, IPv4 and IPv6, half-open ones too."""
    return _list(through, local_port, _ALIVE)


def listens(through: socket.socket, port: int) -> bool:
    """Whether anything listens on the port."""
    return bool(_list(through, port, 1 << LISTEN))


def sockets(through: socket.socket) -> list[Tcp]:
    """Every listening socket and every live connection, IPv4 and IPv6."""
    return _dump(through, 0, _ALIVE | 1 << LISTEN)


def _list(through: socket.socket, local_port: int, states: int) -> list[Tcp]:
    return [each for each in _dump(through, local_port, states) if each.local_port == local_port]


def _dump(through: socket.socket, local_port: int, states: int) -> list[Tcp]:
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        id = _SOCKET_ID.pack(local_port, 0, b"", b"") + bytes(4) + _NO_COOKIE
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, states) + id
        found += [_read(answer) for answer in netlink.request(through, _SOCK_DIAG_BY_FAMILY, netlink.NLM_F_DUMP, body)]
    return found


def destroy(through: socket.socket, one: Tcp) -> None:
    """Reset a connection. Nothing happens where it is gone already. Raises NetlinkError."""
    body = _REQUEST.pack(one.family, socket.IPPROTO_TCP, 0, 0, 1 << one.state) + one.id
    try:
        netlink.request(through, _SOCK_DESTROY, netlink.NLM_F_ACK, body)
    except netlink.NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise


def destroy_older(through: socket.socket, port: int, older_of: Callable[[list[Tcp]], list[Tcp]]) -> int:
    """Destroy every connection to `port` that the gate was not given, until two passes find none; how many there were.

    older_of: those of the listed connections that were not steered to the gate.

    Raises:
        NotOurs: some remain after 3 s, or the kernel cannot destroy (CONFIG_INET_DIAG_DESTROY).
    """
    destroyed, clean_passes = 0, 0
    give_up_at = time.monotonic() + _SWEEP_LIMIT_S
    while clean_passes < 2:
        older = [each for each in older_of(connections(through, port)) if not _is_orphan(each)]
        clean_passes = 0 if older else clean_passes + 1
        if older and time.monotonic() > give_up_at:
            raise NotOurs(f"{len(older)} connections to port {port} are older than this start and cannot be ended")
        for each in older:
            try:
                destroy(through, each)
            except netlink.NetlinkError as error:
                if error.errno == errno.EOPNOTSUPP:
                    raise NotOurs("this kernel cannot end connections that are older than this start (CONFIG_INET_DIAG_DESTROY)") from None
                raise NotOurs(f"a connection to port {port} that is older than this start cannot be ended: {error.strerror}") from None
            destroyed += 1
    return destroyed


def _is_orphan(one: Tcp) -> bool:
    """Closed by its process, waiting for the peer's FIN: nothing can be read from or written to it (the kernel keeps a stub)."""
    return one.state == _FIN_WAIT2 and one.inode == 0


def owner(through: socket.socket, local: tuple[Address, int], remote: tuple[Address, int]) -> Tcp | None:
    """The one established connection with exactly these two ends, as its `local` end has it; None where it is not here."""
    family = socket.AF_INET if local[0].version == 4 else socket.AF_INET6
    id = _SOCKET_ID.pack(local[1], remote[1], local[0].packed, remote[0].packed) + bytes(4) + _NO_COOKIE
    try:
        answers = netlink.request(through, _SOCK_DIAG_BY_FAMILY, 0, _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 0) + id)
    except netlink.NetlinkError:
        return None
    found = _read(answers[0])
    ends = (found.local, found.local_port), (found.remote, found.remote_port)
    # The kernel falls back to a listener where there is no such connection.
    return found if ends == (local, remote) and found.state == _ESTABLISHED else None


def _read(answer: bytes) -> Tcp:
    family, state, _timer, _retrans = _ANSWER_HEAD.unpack_from(answer)
    id = answer[_ANSWER_HEAD.size : _ANSWER_HEAD.size + _ID_BYTES]
    local_port, remote_port, local, remote = _SOCKET_ID.unpack_from(id)
    _expires, _rqueue, _wqueue, uid, inode = _ANSWER_TAIL.unpack_from(answer, _ANSWER_HEAD.size + _ID_BYTES)
    cgroup = 0
    for kind, value in netlink.attributes(answer[_ANSWER_BYTES:]):
        if kind == _INET_DIAG_CGROUP_ID:
            cgroup = int(struct.unpack("=Q", value)[0])
    return Tcp(_address(family, local), local_port, _address(family, remote), remote_port, state, uid, inode, cgroup, family, id)


def _address(family: int, raw: bytes) -> Address:
    """IPv4-mapped addresses are given as the IPv4 addresses they are."""
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(raw[:4])
    address = ipaddress.IPv6Address(raw)
    return address.ipv4_mapped or address
