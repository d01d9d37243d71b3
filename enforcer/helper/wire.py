"""One message a packet over a SOCK_SEQPACKET pair, with a few descriptors at most. Never blocks: both ends are event loops."""

from __future__ import annotations

import array
import os
import socket

from pydantic import BaseModel

from enforcer.helper.messages import MAX_BYTES

_FD_BYTES = array.array("i").itemsize


class Malformed(Exception):
    """The peer sent what no honest peer sends, or does not read what it is sent. It is to be given up."""


def pair() -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    return one, other


def send(through: socket.socket, message: BaseModel, *descriptors: int) -> None:
    """Raises:
    Malformed: the peer has let so many packets pile up that the kernel takes no more.
    OSError: the peer is gone.
    """
    data = message.model_dump_json().encode()
    try:
        if descriptors:
            socket.send_fds(through, [data], list(descriptors))
        else:
            through.send(data)
    except BlockingIOError:
        raise Malformed("it does not read") from None


def receive(from_: socket.socket, max_bytes: int = MAX_BYTES) -> tuple[bytes, list[int]] | None:
    """A packet and the descriptors that came with it; None at the end of the connection.

    Raises:
        BlockingIOError: nothing has come.
        Malformed: longer than `max_bytes`, or empty.
    """
    data, ancillary, flags, _ = from_.recvmsg(max_bytes + 1, socket.CMSG_SPACE(4 * _FD_BYTES), socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, raw in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(raw[: len(raw) - len(raw) % _FD_BYTES])
            descriptors += numbers
    if len(data) > max_bytes or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close(descriptors)
        raise Malformed("a packet is too long")
    if not data:
        close(descriptors)
        return None
    return data, descriptors


def close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
