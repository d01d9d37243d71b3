"""Which addresses belong to the namespace itself: asked of its routing table, so that nobody has to keep a list."""

from __future__ import annotations

import ipaddress
import socket
import struct

from enforcer.kernel import netlink

_RTM_GETROUTE = 26
_RTA_DST = 1
_RTA_OIF = 4
_RTN_LOCAL = 2
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def open_socket() -> socket.socket:
    return netlink.open_socket(netlink.NETLINK_ROUTE)


def is_local(through: socket.socket, address: Address, ifindex: int = 0) -> bool:
    """Whether packets to `address` are delivered in the namespace `through` was opened in.

    ifindex: the interface of a link-local address.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + netlink.attribute(_RTA_DST, address.packed)
    if ifindex:
        body += netlink.attribute(_RTA_OIF, struct.pack("=I", ifindex))
    try:
        answers = netlink.request(through, _RTM_GETROUTE, 0, body)
    except netlink.NetlinkError:  # no route
        return False
    return bool(answers) and _RTMSG.unpack_from(answers[0])[7] == _RTN_LOCAL
