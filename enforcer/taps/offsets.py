"""Where members lie in this kernel's structures, from its own BTF (through libbpf): what tells a process and its namespace apart.

The programs read by these numbers, so that they need no kernel headers and no relocation, whichever loader loads them. Without BTF
all are 0 and the programs leave start time and namespace out.
"""

from __future__ import annotations

import ctypes

from enforcer.kernel.errors import Missing
from enforcer.kernel.libbpf import library

_KIND_STRUCT = 4
_KIND_UNION = 5

_WANTED = {
    "task_leader": ("task_struct", "group_leader"),
    "task_start_boot": ("task_struct", "start_boottime"),
    "task_nsproxy": ("task_struct", "nsproxy"),
    "nsproxy_net": ("nsproxy", "net_ns"),
    "net_inum": ("net", "ns", "inum"),
}


class _Type(ctypes.Structure):
    """struct btf_type."""

    _fields_ = (("name", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size_or_type", ctypes.c_uint32))


class _Member(ctypes.Structure):
    """struct btf_member."""

    _fields_ = (("name", ctypes.c_uint32), ("type", ctypes.c_uint32), ("bits", ctypes.c_uint32))


def kernel_offsets() -> dict[str, int]:
    """For `TlsSettings`; bytes. All 0 where the kernel has no BTF or libbpf is missing."""
    nothing = dict.fromkeys(_WANTED, 0)
    try:
        lib = library()
    except Missing:
        return nothing
    for name in ("btf__load_vmlinux_btf", "btf__type_by_id", "btf__name_by_offset"):
        getattr(lib, name).restype = ctypes.c_void_p
    btf = lib.btf__load_vmlinux_btf()
    if not btf:
        return nothing
    try:
        found = {name: _offset(lib, ctypes.c_void_p(btf), path) for name, path in _WANTED.items()}
    finally:
        lib.btf__free(ctypes.c_void_p(btf))
    return nothing if None in found.values() else {name: offset or 0 for name, offset in found.items()}


def _offset(lib: ctypes.CDLL, btf: ctypes.c_void_p, path: tuple[str, ...]) -> int | None:
    type_id: int = lib.btf__find_by_name_kind(btf, path[0].encode(), _KIND_STRUCT)
    offset = 0
    for name in path[1:]:
        found = _member(lib, btf, type_id, name)
        if found is None:
            return None
        offset, type_id = offset + found[0], found[1]
    return offset


def _member(lib: ctypes.CDLL, btf: ctypes.c_void_p, type_id: int, wanted: str) -> tuple[int, int] | None:
    """Offset and type of a member, also inside unnamed structs and unions."""
    if type_id <= 0:
        return None
    at = lib.btf__type_by_id(btf, type_id)
    if not at:
        return None
    head = _Type.from_address(at)
    if head.info >> 24 & 0x1F not in (_KIND_STRUCT, _KIND_UNION):
        return None
    members = (_Member * (head.info & 0xFFFF)).from_address(at + ctypes.sizeof(_Type))
    has_bitfields = bool(head.info >> 31)
    for member in members:
        bits = member.bits & 0xFFFFFF if has_bitfields else member.bits
        name = ctypes.string_at(lib.btf__name_by_offset(btf, member.name))
        if name == wanted.encode():
            return bits // 8, member.type
        if not name:
            inner = _member(lib, btf, member.type, wanted)
            if inner is not None:
                return bits // 8 + inner[0], inner[1]
    return None
