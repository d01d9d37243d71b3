"""A member as the helper forks one: `python -m tests.enforcer.jury.confined --fd N [--network PATH] [--settings JSON | --probe]`.

Run by test_confinement, as root.

With --probe the confined process tries what it may not do, and what it may, and says over the socket how each ended.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import errno
import mmap
import os
import socket
from collections.abc import Callable

from enforcer.helper import children
from enforcer.jury import member
from enforcer.privilege import identity, jail
from enforcer.privilege.confine import JuryConfinement
from escrow.jury_settings import JurySettings

LISTENER = f"\0holdfast-probe-{os.getpid()}"
"""A Unix socket by name that the confined process tries to reach; it is in its network namespace, and listens."""


def probes() -> dict[str, Callable[[], object]]:
    """Name → the attempt."""
    libc = ctypes.CDLL(None, use_errno=True)

    def checked(result: int) -> None:
        if result < 0:
            raise OSError(ctypes.get_errno(), "")

    def turned() -> None:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pair[0].connect(LISTENER)

    return {
        "tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
        "udp6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close(),
        "resolver": lambda: os.read(os.open("/etc/resolv.conf", os.O_RDONLY), 1),
        "unix": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        "unix datagram pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
        "unix pair turned": turned,
        "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
        "listen": lambda: socket.socket().listen(),
        "bind": lambda: socket.socket().bind(("127.0.0.1", 0)),
        "passwd": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "proc": lambda: os.open("/proc/self/status", os.O_RDONLY),
        "list": lambda: os.listdir("/"),
        "write": lambda: os.open("/etc/resolv.conf", os.O_WRONLY),
        "create": lambda: os.open("/new", os.O_WRONLY | os.O_CREAT),
        "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "kill": lambda: os.kill(os.getppid(), 0),
        "fork": lambda: checked(libc.fork()),
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--settings")
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--network", default="/proc/self/ns/net")
    given = parser.parse_args()
    sock = socket.socket(fileno=given.fd)
    network = os.open(given.network, os.O_RDONLY | os.O_CLOEXEC)
    jail.prepare()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(LISTENER)
    listener.listen()

    def serving() -> Callable[[], None]:
        made = member.prepare(JurySettings.model_validate_json(given.settings))
        return lambda: member.serve(sock, made)

    def probing() -> Callable[[], None]:
        attempts = probes()

        def run() -> None:
            for name, attempt in attempts.items():
                try:
                    attempt()
                    how = "done"
                except OSError as error:
                    how = errno.errorcode[error.errno or 0]
                sock.sendall(f"{name}: {how}\n".encode())

        return run

    keep = [sock.fileno(), network]
    child = children.start("holdfast-jury", probing if given.probe else serving, JuryConfinement(identity.jury(), network), keep)
    sock.close()
    print(child.pid, flush=True)
    print(asyncio.run(child.ended()), flush=True)
    listener.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
