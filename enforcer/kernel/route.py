"""Which addresses belong to the namespace itself, and to which interface: asked of its routing table, so that nobody has to keep a list."""

from __future__ import annotations

import ipaddress
import socket
import struct

from enforcer.kernel import netlink

_RTM_GETROUTE = 26
_RTM_F_FIB_MATCH = 0x2000  # the entry itself, whose interface is the address's; without, all local routes lead to lo
_RTA_DST = 1
_RTA_OIF = 4
_RTN_LOCAL = 2
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def open_socket() -> socket.socket:
    return netlink.open_socket(netlink.NETLINK_ROUTE)


def local_interface(through: socket.socket, address: Address, scope: int = 0) -> int | None:
    """The interface that has `address`, in the namespace `through` was opened in; None where it is nobody's there.

    scope: the interface of a link-local address.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, _RTM_F_FIB_MATCH) + netlink.attribute(_RTA_DST, address.packed)
    if scope:
        body += netlink.attribute(_RTA_OIF, struct.pack("=I", scope))
    try:
        answers = netlink.request(through, _RTM_GETROUTE, 0, body)
    except netlink.NetlinkError:  # no route
        return None
    if not answers or _RTMSG.unpack_from(answers[0])[7] != _RTN_LOCAL:
        return None
    for kind, value in netlink.attributes(answers[0][_RTMSG.size :]):
        if kind == _RTA_OIF:
            return int(struct.unpack("=I", value)[0])
    return None
