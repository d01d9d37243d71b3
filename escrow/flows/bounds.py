"""What the taps' traffic may make us keep, in bytes and counts, and how long holes are waited for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """Every bound of the flows. Whatever passes one is UNSURE from there, and counted.

    flows: connections and TLS objects followed at once; of more, those silent longest are let go.
    waiting_bytes: bytes of one direction that wait behind a hole. history_bytes: bytes already read, kept to compare second
    copies with: segments have up to 64 KiB, and one that crosses two interfaces is seen twice. all_history_bytes: over all flows.
    message_bytes: of one body or event. all_bytes: of everything else, over all flows.
    exchanges: requests of one connection without an answer. calls: open JSON-RPC calls over all connections.
    hole_ns: how long a hole may be filled by a retransmission. Later it is a gap; a wait costs nothing but memory.
    quiet_ns: after how long without a byte a flow's history goes.
    """

    flows: int = 8192
    waiting_bytes: int = 4 << 20
    history_bytes: int = 512 << 10
    all_history_bytes: int = 64 << 20
    head_bytes: int = 32 << 10
    message_bytes: int = 16 << 20
    all_bytes: int = 128 << 20
    exchanges: int = 256
    calls: int = 65536
    hole_ns: int = 3_000_000_000
    quiet_ns: int = 5_000_000_000
