"""The records shared with bpf/steer.h, and their comparison with the compiled object's BTF.

`check` runs at every start: a record that differs from the object's stops Holdfast before anything is attached. BTF is read
from the ELF section itself (Documentation/bpf/btf.rst), so that no library has to agree with us about it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from pathlib import Path

from enforcer.kernel.errors import KernelError


class Settings(ctypes.Structure):
    """struct settings."""

    _fields_ = (
        ("guarded_port", ctypes.c_uint16),
        ("gate_port_ip4", ctypes.c_uint16),
        ("gate_port_ip6", ctypes.c_uint16),
        ("fail_open", ctypes.c_uint8),
        ("sweeping", ctypes.c_uint8),
    )


class Connection(ctypes.Structure):
    """struct connection, from the server's end. Addresses: 16 bytes in network byte order, IPv4 in the first 4."""

    _fields_ = (
        ("remote_ip", ctypes.c_uint32 * 4),
        ("local_ip", ctypes.c_uint32 * 4),
        ("remote_port", ctypes.c_uint16),
        ("local_port", ctypes.c_uint16),
        ("family", ctypes.c_uint32),
    )


class Exemption(ctypes.Structure):
    """struct exemption."""

    _fields_ = (("interface", ctypes.c_uint32), ("used", ctypes.c_uint32))


RECORDS: dict[str, type[ctypes.Structure]] = {"settings": Settings, "connection": Connection, "exemption": Exemption}

Layout = tuple[int, tuple[tuple[str, int], ...]]
"""Size in bytes, and (member, offset in bytes) in order."""

_BTF_MAGIC = 0xEB9F
_KIND_STRUCT = 4
# Bytes after struct btf_type: fixed, and for each of its vlen elements. include/uapi/linux/btf.h
_KIND_BYTES = {
    1: (4, 0),  # INT
    2: (0, 0),  # PTR
    3: (12, 0),  # ARRAY
    4: (0, 12),  # STRUCT
    5: (0, 12),  # UNION
    6: (0, 8),  # ENUM
    7: (0, 0),  # FWD
    8: (0, 0),  # TYPEDEF
    9: (0, 0),  # VOLATILE
    10: (0, 0),  # CONST
    11: (0, 0),  # RESTRICT
    12: (0, 0),  # FUNC
    13: (0, 8),  # FUNC_PROTO
    14: (4, 0),  # VAR
    15: (0, 12),  # DATASEC
    16: (0, 0),  # FLOAT
    17: (4, 0),  # DECL_TAG
    18: (0, 0),  # TYPE_TAG
    19: (0, 12),  # ENUM64
}


def python_layout(record: type[ctypes.Structure]) -> Layout:
    names = [field[0] for field in record._fields_]
    return ctypes.sizeof(record), tuple((name, getattr(record, name).offset) for name in names)


def object_layouts(path: Path) -> dict[str, Layout]:
    """The layout of every named struct in an object's BTF."""
    return dict(_structs(_section(path.read_bytes(), ".BTF")))


def check(path: Path) -> None:
    """Raises KernelError where a record of the object is laid out otherwise than ours."""
    found = object_layouts(path)
    for name, record in RECORDS.items():
        if found.get(name) != python_layout(record):
            raise KernelError(f"{path.name} was built from other sources: its record {name!r} is laid out differently (make -C bpf)")


def _section(elf: bytes, wanted: str) -> bytes:
    """A section of a little-endian ELF64 file (what clang's bpf target makes)."""
    table_at = struct.unpack_from("<Q", elf, 0x28)[0]
    entry_bytes, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, table_at + index * entry_bytes) for index in range(count)]
    names_at = headers[names_index][4]
    for name, _kind, _flags, _address, at, size in headers:
        start = names_at + name
        if elf[start : elf.index(b"\0", start)].decode() == wanted:
            return elf[at : at + size]
    raise KernelError(f"the object has no {wanted} (it was built without -g)")


def _structs(btf: bytes) -> Iterator[tuple[str, Layout]]:
    magic, _version, _flags, header_bytes, types_at, types_bytes, names_at, names_bytes = struct.unpack_from("<HBBIIIII", btf)
    if magic != _BTF_MAGIC:
        raise KernelError("the object's BTF is not readable on this machine")
    names = btf[header_bytes + names_at : header_bytes + names_at + names_bytes]

    def name_at(offset: int) -> str:
        return names[offset : names.index(b"\0", offset)].decode()

    at, end = header_bytes + types_at, header_bytes + types_at + types_bytes
    while at < end:
        name, info, size = struct.unpack_from("<III", btf, at)
        kind, count = (info >> 24) & 0x1F, info & 0xFFFF
        at += 12
        fixed, each = _KIND_BYTES[kind]
        if kind == _KIND_STRUCT and name:
            members = (struct.unpack_from("<III", btf, at + index * each) for index in range(count))
            yield name_at(name), (size, tuple((name_at(member), bits // 8) for member, _type, bits in members))
        at += fixed + each * count
