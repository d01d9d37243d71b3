"""What the tests of the taps share: a network namespace for the main thread, a tap that is drained, packets made by hand."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from enforcer.privilege import libc
from enforcer.taps.loading import Loaded, LoaderName
from enforcer.taps.reader import Descriptors, Reader
from enforcer.taps.watch import Scope, TlsTaps
from enforcer.taps.wire import WireTap
from escrow.events import Connection, Direction, Event, TcpSlice

PORT = 18931


@contextmanager
def namespace() -> Iterator[None]:
    """The calling thread is in a network namespace of its own, with loopback up."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    libc.unshare(libc.CLONE_NEWNET)
    try:
        ip("link set lo up")
        yield
    finally:
        libc.setns(home, libc.CLONE_NEWNET)
        os.close(home)


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True, timeout=10)


def descriptors(source: str, loaded: Loaded) -> Descriptors:
    return Descriptors(source, loaded.maps[f"{source}_ring"], loaded.maps[f"{source}_counters"], loaded.ring_bytes)


class Drained:
    """A reader and everything it has read."""

    def __init__(self, sources: list[Descriptors]) -> None:
        self.reader = Reader(sources)
        self.events: list[Event] = []
        self.follow: Callable[[], object] = lambda: None

    def read(self) -> list[Event]:
        self.follow()
        while True:
            found, more = self.reader.read(time.monotonic_ns())
            self.events += found
            if not more:
                return self.events

    def until(self, true: Callable[[list[Event]], object], limit_s: float = 10) -> list[Event]:
        """Read until so; fails after the limit."""
        end = time.monotonic() + limit_s
        while not true(self.read()):
            assert time.monotonic() < end, f"not seen within {limit_s} s; counts: {self.reader.counts()}"
            time.sleep(0.005)
        return self.events


@contextmanager
def wire(loader: LoaderName = "libbpf", ports: tuple[int, ...] = (PORT,), ring_bytes: int = 16 << 20) -> Iterator[tuple[WireTap, Drained]]:
    tap = WireTap(ports, loader, ring_bytes)
    drained = Drained([descriptors("tap", tap.loaded)])
    try:
        yield tap, drained
    finally:
        drained.reader.close()
        tap.close()


@contextmanager
def both(scope: Scope, ports: tuple[int, ...] = (PORT,), ring_bytes: int = 32 << 20) -> Iterator[tuple[WireTap, TlsTaps, Drained]]:
    tap = WireTap(ports, ring_bytes=ring_bytes)
    tls = TlsTaps(scope, ring_bytes=ring_bytes)
    drained = Drained([descriptors("tap", tap.loaded), descriptors("tls", tls.loaded)])
    drained.follow = tls.follow
    try:
        tls.scan()
        yield tap, tls, drained
    finally:
        drained.reader.close()
        tls.close()
        tap.close()


@contextmanager
def tls(scope: Scope, loader: LoaderName = "libbpf", ring_bytes: int = 16 << 20) -> Iterator[tuple[TlsTaps, Drained]]:
    taps = TlsTaps(scope, loader, ring_bytes)
    drained = Drained([descriptors("tls", taps.loaded)])
    try:
        taps.scan()
        yield taps, drained
    finally:
        drained.reader.close()
        taps.close()


def stream(events: list[Event], connection: Connection, direction: Direction) -> bytes:
    """The bytes of one direction, put together by sequence; nothing may be missing."""
    pieces = [each for each in events if isinstance(each, TcpSlice) and (each.connection, each.direction) == (connection, direction)]
    start = next(each.sequence for each in pieces if each.flags & 2)
    at = {(each.sequence - start - 1) & 0xFFFFFFFF: each.data for each in pieces if each.data}
    whole = b""
    for offset in sorted(at):
        assert offset <= len(whole), f"a hole at {len(whole)}"
        whole += at[offset][len(whole) - offset :]
    return whole


def connections(events: list[Event]) -> list[Connection]:
    return list(dict.fromkeys(each.connection for each in events if isinstance(each, TcpSlice)))


def tcp(payload: bytes, source: int = 40000, destination: int = PORT, sequence: int = 1000, flags: int = 0x18, options: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", source, destination, sequence, 0, (5 + len(options) // 4) << 4, flags, 65535, 0, 0) + options + payload


def ip4(payload: bytes, options: bytes = b"", fragment: int = 0, protocol: int = 6) -> bytes:
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 7, fragment, 64, protocol, 0, b"\x0a\0\0\1", b"\x0a\0\0\2"
    )
    return head + options + payload


def ip6(payload: bytes, extensions: tuple[tuple[int, bytes], ...] = (), last: int = 6) -> bytes:
    """extensions: (protocol number, body without its next header byte)."""
    kinds = [kind for kind, _body in extensions] + [last]
    chain = b"".join(bytes([following]) + body for (_kind, body), following in zip(extensions, kinds[1:], strict=True))
    source, to = socket.inet_pton(socket.AF_INET6, "fd00::1"), socket.inet_pton(socket.AF_INET6, "fd00::2")
    return struct.pack("!IHBB16s16s", 6 << 28, len(chain) + len(payload), kinds[0], 64, source, to) + chain + payload


@contextmanager
def cable(name: str = "cable0") -> Iterator[Callable[[bytes, int], None]]:
    """An interface to another namespace. Yields send(packet after the Ethernet header, Ethernet type): it arrives here, once."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    libc.unshare(libc.CLONE_NEWNET)
    try:
        ip(f"link add far mtu 65535 type veth peer name {name} mtu 65535 netns /proc/{os.getpid()}/fd/{home}")
        ip("link set far up")
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        raw.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS: the queue is only there some time after the interface is up
        raw.bind(("far", 0))
    finally:
        libc.setns(home, libc.CLONE_NEWNET)
        os.close(home)
    with raw:
        ip(f"link set {name} up")

        def send(packet: bytes, kind: int) -> None:
            raw.send(b"\x02\0\0\0\0\1\x02\0\0\0\0\2" + struct.pack("!H", kind) + packet)

        yield send
