"""Request and answer over a netlink socket (RFC 3549; include/uapi/linux/netlink.h). Synchronous and bounded in time.

The kernel is the only peer listened to: what any other process sends to the socket is discarded.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_RECEIVE_BYTES = 65536
_TIMEOUT_S = 2.0


class NetlinkError(OSError):
    """The kernel's answer was an error; errno is its."""


def open_socket(family: int) -> socket.socket:
    """A netlink socket of the calling thread's network namespace, for good: it may be passed on."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    opened.settimeout(_TIMEOUT_S)
    return opened


_sequence = 0


def request(through: socket.socket, kind: int, flags: int, body: bytes) -> list[bytes]:
    """Send one request; the bodies of its answers (none for a bare acknowledgement).

    Raises:
        NetlinkError: the kernel refused.
        TimeoutError: no answer within 2 s.
    """
    global _sequence
    _sequence = (_sequence + 1) & 0xFFFFFFFF
    through.sendto(_HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, _sequence, 0) + body, (0, 0))
    bodies: list[bytes] = []
    while True:
        data, (sender, _groups) = through.recvfrom(_RECEIVE_BYTES)
        if sender != 0:
            continue
        for answer, sequence, payload in _messages(data):
            if sequence != _sequence:  # late answer to a request given up on
                continue
            if answer == _NLMSG_DONE:
                return bodies
            if answer == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", payload)[0]
                if number:
                    raise NetlinkError(number, os.strerror(number))
                return bodies
            bodies.append(payload)
            if not flags & (NLM_F_DUMP | NLM_F_ACK):
                return bodies


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, sequence, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute in a body's tail."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)
