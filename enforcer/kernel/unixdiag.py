"""Unix sockets as the kernel knows them (sock_diag(7), include/uapi/linux/unix_diag.h): those that listen, and those connected to them.

Of the network namespace that the netlink socket was opened in. Needs no privilege.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from enforcer.kernel import netlink

_SOCK_DIAG_BY_FAMILY = 20
_SHOW_NAME, _SHOW_PEER, _SHOW_ICONS = 0x01, 0x04, 0x08
_NAME, _PEER, _ICONS = 0, 2, 3
_REQUEST = struct.Struct("=BBHIIIII")  # unix_diag_req: family, protocol, pad, states, ino, show, cookie
_ANSWER = struct.Struct("=BBBBIII")  # unix_diag_msg: family, type, state, pad, ino, cookie
_LISTEN, _ESTABLISHED = 10, 1


@dataclass(frozen=True, slots=True)
class Unix:
    """One Unix socket. name: its path, `@name` in the abstract space, "" for none. peer: inode of the other end, 0 where it has none.

    waiting: inodes of sockets that connected to a listening one and were not accepted yet.
    """

    inode: int
    listens: bool
    name: str
    peer: int
    waiting: tuple[int, ...]


def sockets(through: socket.socket) -> list[Unix]:
    """Every listening or connected Unix socket that can carry a stream or packets in order. Raises NetlinkError, TimeoutError."""
    show = _SHOW_NAME | _SHOW_PEER | _SHOW_ICONS
    body = _REQUEST.pack(socket.AF_UNIX, 0, 0, 1 << _LISTEN | 1 << _ESTABLISHED, 0, show, 0xFFFFFFFF, 0xFFFFFFFF)
    return [_read(answer) for answer in netlink.request(through, _SOCK_DIAG_BY_FAMILY, netlink.NLM_F_DUMP, body)]


def _read(answer: bytes) -> Unix:
    _family, _type, state, _pad, inode, _low, _high = _ANSWER.unpack_from(answer)
    name, peer = "", 0
    waiting: tuple[int, ...] = ()
    for kind, value in netlink.attributes(answer[_ANSWER.size :]):
        if kind == _NAME:
            name = "@" + value[1:].decode("utf-8", "replace") if value[:1] == b"\0" else value.rstrip(b"\0").decode("utf-8", "replace")
        elif kind == _PEER:
            peer = int(struct.unpack("=I", value)[0])
        elif kind == _ICONS:
            waiting = struct.unpack(f"={len(value) // 4}I", value)
    return Unix(inode, state == _LISTEN, name, peer, waiting)
