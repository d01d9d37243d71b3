"""The loader: libbpf.so.1 (libbpf 1.0 or later) through ctypes. Objects, maps, links and pins; nothing about any one program.

Descriptors are plain ints owned by whoever got them, but for those of an `Object`, which it closes. Every failure is a
`BpfError` that names the call, and for a load what libbpf and the verifier said.

Numbers: include/uapi/linux/bpf.h. The loader for kernels without BTF will be a second module with the same calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from enforcer.kernel.errors import KernelError, Missing

BPF_ANY = 0
BPF_NOEXIST = 1
BPF_SK_LOOKUP = 36  # enum bpf_attach_type
BPF_OBJ_NAME_LEN = 16

_LIBBPF_ERRNO = 4000
_LOG_LINES = 60  # of libbpf's and the verifier's output kept for an error


class BpfError(KernelError):
    """A BPF call failed. errno is the kernel's."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.errno = number


class _LinkInfo(ctypes.Structure):
    """struct bpf_link_info, the part common to all kinds and the netns member of the union."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("netns_ino", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 104),
    )


class _ProgInfo(ctypes.Structure):
    """struct bpf_prog_info up to `name`; the kernel writes no more than it is asked for."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * BPF_OBJ_NAME_LEN),
    )


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """netns_ino is 0 when the link is detached: its namespace is gone, or somebody detached it."""

    id: int
    prog_id: int
    netns_ino: int


@dataclass(frozen=True, slots=True)
class ProgInfo:
    id: int
    name: str


_Info = TypeVar("_Info", bound=ctypes.Structure)

_lib: ctypes.CDLL | None = None
_libc = ctypes.CDLL(None, use_errno=True)
_log: list[str] = []
_PrintFn = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def _keep_log(_level: int, fmt: bytes, arguments: int) -> int:
    # va_list is passed as a pointer on x86-64 and arm64 alike.
    line = ctypes.create_string_buffer(4096)
    size: int = _libc.vsnprintf(line, ctypes.c_size_t(len(line)), fmt, ctypes.c_void_p(arguments))
    _log.append(line.value.decode(errors="replace").rstrip())
    del _log[:-_LOG_LINES]
    return size


_print_fn = _PrintFn(_keep_log)


def library() -> ctypes.CDLL:
    """libbpf, loaded at the first call. Raises Missing."""
    global _lib
    if _lib is not None:
        return _lib
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError:
        raise Missing("libbpf.so.1 is not installed (Debian and Ubuntu: apt install libbpf1)") from None
    for name in ("bpf_object__open_file", "bpf_object__find_map_by_name", "bpf_object__find_program_by_name", "bpf_object__btf"):
        getattr(lib, name).restype = ctypes.c_void_p
    _lib = lib
    return lib


def _check(result: int, what: str) -> int:
    if result >= 0:
        return result
    number = ctypes.get_errno() or -result
    raise BpfError(f"{what}: {os.strerror(number)}", number)


class Object:
    """A compiled object, loaded into the kernel. Its maps' and programs' descriptors live as long as it does."""

    def __init__(self, path: Path) -> None:
        """Open without loading. Raises Missing where there is no such file."""
        if not path.is_file():
            raise Missing(f"the BPF program {path.name} was not built (make -C bpf)")
        self._path = path
        self._lib = library()
        self._lib.libbpf_set_print(_print_fn)  # BCC, in the same process, uses the same library and takes it
        _log.clear()
        self._handle = self._lib.bpf_object__open_file(os.fsencode(path), None)
        if not self._handle:
            raise self._failure("cannot open")

    def load(self) -> None:
        """Verify and load all programs, create all maps. Raises BpfError."""
        _log.clear()
        if self._lib.bpf_object__load(ctypes.c_void_p(self._handle)) != 0:
            raise self._failure("cannot load")

    def set_max_entries(self, name: str, entries: int) -> None:
        """To be called before `load`."""
        pointer = self._lib.bpf_object__find_map_by_name(ctypes.c_void_p(self._handle), name.encode())
        _check(self._lib.bpf_map__set_max_entries(ctypes.c_void_p(pointer), entries) if pointer else -errno.ENOENT, f"map {name}")

    def set_attach_type(self, name: str, attach_type: int) -> None:
        """What the program will be attached to (enum bpf_attach_type). To be called before `load`."""
        pointer = self._lib.bpf_object__find_program_by_name(ctypes.c_void_p(self._handle), name.encode())
        _check(self._lib.bpf_program__set_expected_attach_type(ctypes.c_void_p(pointer), attach_type) if pointer else -errno.ENOENT, f"program {name}")

    def map_fd(self, name: str) -> int:
        pointer = self._lib.bpf_object__find_map_by_name(ctypes.c_void_p(self._handle), name.encode())
        return _check(self._lib.bpf_map__fd(ctypes.c_void_p(pointer)) if pointer else -errno.ENOENT, f"map {name}")

    def program_fd(self, name: str) -> int:
        pointer = self._lib.bpf_object__find_program_by_name(ctypes.c_void_p(self._handle), name.encode())
        return _check(self._lib.bpf_program__fd(ctypes.c_void_p(pointer)) if pointer else -errno.ENOENT, f"program {name}")

    @property
    def btf(self) -> int:
        """`struct btf *` of the object, for records.check()."""
        return int(self._lib.bpf_object__btf(ctypes.c_void_p(self._handle)) or 0)

    def close(self) -> None:
        if self._handle:
            self._lib.bpf_object__close(ctypes.c_void_p(self._handle))
            self._handle = None

    def _failure(self, what: str) -> BpfError:
        number = ctypes.get_errno()
        why = os.strerror(number) if number < _LIBBPF_ERRNO else "not a BPF object"  # its own numbers: libbpf.h, enum libbpf_errno
        return BpfError("\n  ".join([f"{what} {self._path.name}: {why}", *_log]), number)


def map_update(fd: int, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
    _check(library().bpf_map_update_elem(fd, key, value, ctypes.c_uint64(flags)), "map update")


def map_lookup(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """The value, or None where there is none. value_bytes: for a per-CPU map, 8-aligned size times `possible_cpus()`."""
    value = ctypes.create_string_buffer(value_bytes)
    if library().bpf_map_lookup_elem(fd, key, value) == 0:
        return value.raw
    number = ctypes.get_errno()
    if number == errno.ENOENT:
        return None
    raise BpfError(f"map lookup: {os.strerror(number)}", number)


def map_delete(fd: int, key: bytes) -> bool:
    """Whether there was such a key."""
    if library().bpf_map_delete_elem(fd, key) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.ENOENT:
        return False
    raise BpfError(f"map delete: {os.strerror(number)}", number)


def map_keys(fd: int, key_bytes: int) -> list[bytes]:
    """Every key, as far as the map holds still."""
    keys: list[bytes] = []
    following = ctypes.create_string_buffer(key_bytes)
    while library().bpf_map_get_next_key(fd, keys[-1] if keys else None, following) == 0:
        keys.append(following.raw)
    return keys


def possible_cpus() -> int:
    return _check(library().libbpf_num_possible_cpus(), "number of CPUs")


def link_create(prog_fd: int, target_fd: int, attach_type: int) -> int:
    return _check(library().bpf_link_create(prog_fd, target_fd, attach_type, None), "attach")


def link_update(link_fd: int, prog_fd: int) -> None:
    """Swap the link's program atomically."""
    _check(library().bpf_link_update(link_fd, prog_fd, None), "replace the attached program")


def link_info(fd: int) -> LinkInfo:
    info = _info(fd, _LinkInfo())
    return LinkInfo(info.id, info.prog_id, info.netns_ino)


def prog_info(fd: int) -> ProgInfo:
    info = _info(fd, _ProgInfo())
    return ProgInfo(info.id, info.name.decode(errors="replace"))


def prog_info_by_id(prog_id: int) -> ProgInfo | None:
    """None where it is gone."""
    fd: int = library().bpf_prog_get_fd_by_id(prog_id)
    if fd < 0:
        return None
    try:
        return prog_info(fd)
    finally:
        os.close(fd)


def _info(fd: int, into: _Info) -> _Info:
    size = ctypes.c_uint32(ctypes.sizeof(into))
    _check(library().bpf_obj_get_info_by_fd(fd, ctypes.byref(into), ctypes.byref(size)), "object info")
    return into


def query(target_fd: int, attach_type: int) -> list[int]:
    """Ids of the programs attached to a namespace, in the order they run."""
    count = ctypes.c_uint32(64)  # BPF_NETNS: MAX_BPF_ATTACH per namespace is 64
    ids = (ctypes.c_uint32 * 64)()
    _check(library().bpf_prog_query(target_fd, attach_type, 0, None, ids, ctypes.byref(count)), "list of attached programs")
    return list(ids[: count.value])


def pin(fd: int, path: Path) -> None:
    _check(library().bpf_obj_pin(fd, os.fsencode(path)), f"pin {path}")


def get(path: Path) -> int | None:
    """A descriptor of what is pinned at path; None where nothing is."""
    fd: int = library().bpf_obj_get(os.fsencode(path))
    if fd >= 0:
        return fd
    number = ctypes.get_errno()
    if number == errno.ENOENT:
        return None
    raise BpfError(f"open the pin {path}: {os.strerror(number)}", number)
