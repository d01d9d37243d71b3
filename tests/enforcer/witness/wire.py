"""Real packets as the tap would record them: everything of one port on a namespace's loopback, from a packet socket."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Iterator

from escrow.events import Connection, Direction, Endpoint, TcpFlags, TcpSlice
from tests.enforcer.helper.world import Net

_SO_RCVBUFFORCE = 33
_ETH_P_ALL = 3
_IDLE_S = 0.2


class Capture:
    """Slices of everything to and from a port. Each packet comes twice, as it leaves and as it arrives."""

    def __init__(self, inside: Net, port: int) -> None:
        self._port = port
        self._socket = inside.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 256 << 20)
        self._socket.settimeout(_IDLE_S)
        self._packets: list[tuple[int, bytes]] = []
        self._thread = threading.Thread(target=self._read)
        self._stopping = False

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                self._packets.append((time.monotonic_ns(), self._socket.recv(1 << 17)))
            except TimeoutError:
                if self._stopping:
                    return

    def slices(self) -> Iterator[TcpSlice]:
        """What was captured; after the capture's end."""
        for time_ns, packet in self._packets:
            if packet[0] >> 4 == 4:
                start, protocol, length = (packet[0] & 15) * 4, packet[9], struct.unpack_from("!H", packet, 2)[0]
                source, target = packet[12:16], packet[16:20]
                end = length or len(packet)
            else:
                start, protocol, end = 40, packet[6], 40 + struct.unpack_from("!H", packet, 4)[0]
                source, target = packet[8:24], packet[24:40]
            if protocol != socket.IPPROTO_TCP:
                continue
            sport, dport, sequence, _, offset, bits = struct.unpack_from("!HHIIBB", packet, start)
            if self._port not in (sport, dport):
                continue
            to_server = dport == self._port
            ends = Endpoint(str(ipaddress.ip_address(source)), sport), Endpoint(str(ipaddress.ip_address(target)), dport)
            link = Connection(*ends) if to_server else Connection(ends[1], ends[0])
            data = packet[start + (offset >> 4) * 4 : end]
            direction = Direction.TO_SERVER if to_server else Direction.TO_CLIENT
            yield from _cut(link, direction, time_ns, sequence, data, TcpFlags(bits & 7))


def _cut(link: Connection, direction: Direction, time_ns: int, sequence: int, data: bytes, flags: TcpFlags) -> Iterator[TcpSlice]:
    """As the tap cuts a segment: 16 KiB each, SYN on the first, FIN and RST on the last."""
    starts = range(0, len(data), 16384) or range(1)
    for at in starts:
        mine = flags & TcpFlags.SYN if at == 0 else TcpFlags.NONE
        if at == starts[-1]:
            mine |= flags & (TcpFlags.FIN | TcpFlags.RST)
        piece = data[at : at + 16384]
        if piece or mine:
            yield TcpSlice(link, direction, time_ns, (sequence + at) & 0xFFFFFFFF, piece, 0, mine, 1)
