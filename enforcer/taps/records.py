"""The records shared with bpf/events.h: as ctypes for comparison with BTF and for the maps, as `struct` formats for decoding.

`check` runs at every start, before anything is attached. The formats are made from the ctypes, so that there is one description.
"""

from __future__ import annotations

import ctypes
import struct
from enum import IntEnum
from pathlib import Path

from enforcer.kernel.errors import KernelError
from enforcer.kernel.records import object_layouts, python_layout

u8, u16, u32, u64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64


class Kind(IntEnum):
    """enum record_kind."""

    TCP_SLICE = 1
    TCP_GAP = 2
    TLS_OPENED = 3
    TLS_SLICE = 4
    TLS_CLOSED = 5
    TLS_CIPHER = 6
    TLS_FD = 7
    PROCESS_STARTED = 8
    PROCESS_ENDED = 9


class Counter(IntEnum):
    """enum counter. After each LOST_… stands the number of its payload bytes."""

    TOTAL = 0
    DUPLICATE = 1
    MATCHED = 2
    CAPTURED = 3
    CAPTURED_BYTES = 4
    LOST_RING_FULL = 5
    LOST_UNREADABLE = 7
    LOST_FRAGMENT = 9
    LOST_HEADERS = 11
    LOST_TOO_LONG = 13
    LOST_NO_STATE = 15


COUNTERS = 17
PID_WATCHED = 1
PID_IGNORED = 2


class TcpRecord(ctypes.Structure):
    """struct tcp_record."""

    _fields_ = (
        ("kind", u8),
        ("direction", u8),
        ("flags", u8),
        ("detail", u8),
        ("interface", u32),
        ("time_ns", u64),
        ("family", u16),
        ("client_port", u16),
        ("server_port", u16),
        ("pad", u16),
        ("client_ip", u32 * 4),
        ("server_ip", u32 * 4),
        ("sequence", u32),
        ("captured_bytes", u32),
        ("missing_bytes", u32),
        ("pad2", u32),
    )


class TlsRecord(ctypes.Structure):
    """struct tls_record."""

    _fields_ = (
        ("kind", u8),
        ("direction", u8),
        ("detail", u8),
        ("pad", u8),
        ("thread", u32),
        ("time_ns", u64),
        ("pid", u32),
        ("netns", u32),
        ("start_boot_ns", u64),
        ("cgroup", u64),
        ("pointer", u64),
        ("number", u64),
        ("sequence", u64),
        ("offset", u64),
        ("total", u64),
        ("missing_bytes", u64),
        ("captured_bytes", u32),
        ("pad2", u32),
    )


class TapSettings(ctypes.Structure):
    """struct tap_settings."""

    _fields_ = (("capture_bytes", u32), ("wake_bytes", u32))


class TlsSettings(ctypes.Structure):
    """struct tls_settings."""

    _fields_ = (
        ("scope_cgroup", u64),
        ("scope_cgroup_level", u32),
        ("scope_netns", u32),
        ("scope_pids", u32),
        ("wake_bytes", u32),
        ("task_leader", u32),
        ("task_start_boot", u32),
        ("task_nsproxy", u32),
        ("nsproxy_net", u32),
        ("net_inum", u32),
        ("pad", u32),
    )


class PointerKey(ctypes.Structure):
    """struct pointer_key."""

    _fields_ = (("start_boot_ns", u64), ("pointer", u64), ("pid", u32), ("pad", u32))


class TlsObjectState(ctypes.Structure):
    """struct tls_object."""

    _fields_ = (
        ("number", u64),
        ("read_calls", u64),
        ("write_calls", u64),
        ("read_evidence", u32),
        ("write_evidence", u32),
        ("said_shutdown", u32),
        ("pad", u32),
    )


class TlsBio(ctypes.Structure):
    """struct tls_bio."""

    _fields_ = (("ssl", u64), ("number", u64), ("direction", u32), ("pad", u32))


class CallKey(ctypes.Structure):
    """struct call_key."""

    _fields_ = (("thread", u64), ("function", u64))


class Call(ctypes.Structure):
    """struct call."""

    _fields_ = (("ssl", u64), ("buffer", u64), ("done_bytes_at", u64))


TAP_RECORDS: dict[str, type[ctypes.Structure]] = {"tcp_record": TcpRecord, "tap_settings": TapSettings}
TLS_RECORDS: dict[str, type[ctypes.Structure]] = {
    "tls_record": TlsRecord,
    "tls_settings": TlsSettings,
    "pointer_key": PointerKey,
    "tls_object": TlsObjectState,
    "tls_bio": TlsBio,
    "call_key": CallKey,
    "call": Call,
}
RECORDS = TAP_RECORDS | TLS_RECORDS

_LETTERS: dict[object, str] = {u8: "B", u16: "H", u32: "I", u64: "Q"}


def _format(record: type[ctypes.Structure], whole: tuple[str, str]) -> struct.Struct:
    """All members in order, but those from `whole[0]` to `whole[1]` as one run of bytes; padding left out."""
    text, inside = "=", False
    for name, kind in ((field[0], field[1]) for field in record._fields_):
        first, last = name == whole[0], name == whole[1]
        inside = inside or first
        if first:
            start = getattr(record, name).offset
        if inside:
            if last:
                inside = False
                text += f"{getattr(record, name).offset + ctypes.sizeof(kind) - start}s"
        elif name.startswith("pad"):
            text += f"{ctypes.sizeof(kind)}x"
        else:
            text += _LETTERS[kind]
    return struct.Struct(text)


TCP = _format(TcpRecord, ("family", "server_ip"))
"""kind, direction, flags, detail, interface, time_ns, the connection's bytes, sequence, captured, missing."""
TCP_CONNECTION = struct.Struct("=HHH2x16s16s")
"""family, client port, server port, client, server."""
TLS = _format(TlsRecord, ("pid", "number"))
"""kind, direction, detail, thread, time_ns, the object's bytes, sequence, offset, total, missing, captured."""
TLS_OBJECT = struct.Struct("=IIQQQQ")
"""pid, netns, start, cgroup, pointer, number."""


def check(path: Path) -> None:
    """Raises KernelError where a record of the object is laid out otherwise than ours. Of each object, the records it has."""
    found = object_layouts(path)
    wanted = TAP_RECORDS if path.name.startswith("tap") else TLS_RECORDS
    for name, record in wanted.items():
        if found.get(name) != python_layout(record):
            raise KernelError(f"{path.name} was built from other sources: its record {name!r} is laid out differently (make -C bpf)")
