"""The second loader: BCC (Debian's python3-bpfcc) compiles bpf/*.bpf.c at start. For kernels without BTF.

BCC's own way of making maps rewrites the source; instead the maps are made here, from the same DECLARE_MAP and DECLARE_RING lines, and
their descriptors are compiled in (bpf/loader.h). What is loaded is therefore the same C, with the same maps.

PyPI's `bcc` is another project. `found` tells the two apart.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from enforcer.kernel import attach, libbpf
from enforcer.kernel.errors import KernelError, Missing
from enforcer.taps.records import RECORDS
from enforcer.taps.sources import MAPS, PROGRAMS, Source

SOURCES = Path(__file__).parent.parent / "kernel" / "objects"
"""bpf/Makefile puts the sources beside the objects, so that an installed package has them."""
_TYPES = {"ARRAY": 2, "HASH": 1, "LRU_HASH": 9, "RINGBUF": 27}  # enum bpf_map_type
_FLAGS = {"0": 0, "BPF_F_NO_PREALLOC": 1, "BPF_F_MMAPABLE": 1 << 10}
_QUIET = ("-Wno-macro-redefined", "-Wno-ignored-attributes", "-Wno-duplicate-decl-specifier")  # of the kernel's own headers
_SCALARS = {"__u32": 4, "__u64": 8}
_MAP = re.compile(r"^DECLARE_MAP\((\w+), (\w+), ([\w ]+), ([\w ]+), (\d+), (\w+)\);$", re.M)
_RING = re.compile(r"^DECLARE_RING\((\w+), (\d+)\);$", re.M)


class _MapOptions(ctypes.Structure):
    """struct bpf_map_create_opts of libbpf 1.0."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    )


def found() -> tuple[ModuleType | None, str]:
    """The BCC module, or None; and a sentence that says which, for `doctor`."""
    try:
        module = importlib.import_module("bcc")
    except ImportError as error:
        return None, f"python3-bpfcc is not importable ({error.msg}): apt install python3-bpfcc, and a venv made with --system-site-packages"
    if not hasattr(module, "BPF") or not hasattr(module.BPF, "load_func"):
        where = getattr(module, "__file__", None) or "?"
        text = f"the module `bcc` at {where} is not the BPF Compiler Collection but PyPI's package of that name"
        return None, f"{text}: pip uninstall bcc; apt install python3-bpfcc"
    return module, f"python3-bpfcc {getattr(module, '__version__', 'of unknown version')}"


def headers() -> tuple[Path | None, str]:
    """Kernel headers to compile against, and a sentence that says what was found.

    The programs use UAPI types only, so those of another kernel do; those of the running one come first.
    """
    own = Path("/lib/modules") / platform.release() / "build"
    if own.is_dir():
        return own, f"headers of the running kernel ({own})"
    if Path("/sys/kernel/kheaders.tar.xz").exists():
        return None, "headers inside the running kernel (/sys/kernel/kheaders.tar.xz)"
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    others = sorted(Path("/usr/src").glob(f"linux-headers-*-{machine}"))
    if others:
        return others[-1], f"no headers of the running kernel {platform.release()}; {others[-1].name} does instead, since the programs use UAPI types only"
    return None, f"no kernel headers: apt install linux-headers-{machine} (any version: the programs use UAPI types only)"


@contextmanager
def _whole(tree: Path | None) -> Iterator[None]:
    """Have BCC find a whole tree. Debian keeps in a second package what does not depend on the configuration: put together by links."""
    if tree is None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-headers-") as made:
        if not (tree / "include/linux/kconfig.h").exists():
            tree = tree.resolve()
            common = tree.with_name(tree.name.rpartition("-")[0] + "-common")
            for part in ("include", *(f"arch/{arch.name}/include" for arch in (tree / "arch").iterdir() if arch.is_dir())):
                (Path(made) / part).mkdir(parents=True)
                for origin in (tree, common):
                    for entry in (origin / part).iterdir() if (origin / part).is_dir() else ():
                        link = Path(made) / part / entry.name
                        if not link.is_symlink():
                            link.symlink_to(entry)
            tree = Path(made)
        os.environ["BCC_KERNEL_SOURCE"] = str(tree)
        try:
            yield
        finally:
            del os.environ["BCC_KERNEL_SOURCE"]


def _size(kind: str) -> int:
    return _SCALARS[kind] if kind in _SCALARS else ctypes.sizeof(RECORDS[kind.removeprefix("struct ")])


def make_maps(text: str, ring_bytes: int) -> dict[str, int]:
    """Every map that a source declares, as descriptors; the ring with a size of ours. Raises BpfError."""
    lib = libbpf.library()
    made: dict[str, int] = {}

    def make(name: str, kind: str, key: int, value: int, entries: int, flags: int) -> None:
        options = _MapOptions(sz=ctypes.sizeof(_MapOptions), map_flags=flags)
        fd: int = lib.bpf_map_create(_TYPES[kind], name.encode(), key, value, entries, ctypes.byref(options))
        if fd < 0:
            number = ctypes.get_errno()
            for other in made.values():
                os.close(other)
            raise libbpf.BpfError(f"map {name}: {os.strerror(number)}", number)
        made[name] = fd

    for name, kind, key, value, entries, flags in _MAP.findall(text):
        make(name, kind, _size(key), _size(value), int(entries), _FLAGS[flags])
    for name, _declared in _RING.findall(text):
        make(name, "RINGBUF", 0, 0, ring_bytes, 0)
    return made


def load(source: Source, ring_bytes: int) -> tuple[dict[str, int], dict[str, int]]:
    """Compile and load; programs and maps by name, as descriptors of the caller's. Raises Missing, KernelError."""
    module, why = found()
    if module is None:
        raise Missing(why)
    tree, headers_why = headers()
    if tree is None and "kheaders" not in headers_why:
        raise Missing(headers_why)
    path = SOURCES / f"{source}.bpf.c"
    if not path.is_file():
        raise Missing(f"the source {path.name} is not where the object would be (make -C bpf)")
    text = path.read_text(encoding="utf-8")
    maps = make_maps(text, ring_bytes)
    if tuple(sorted(maps)) != tuple(sorted(MAPS[source])):
        raise KernelError(f"{source}.bpf.c declares other maps than we know")
    flags = ["-DHOLDFAST_BCC", f"-I{SOURCES}", *_QUIET, *(f"-DFD_{name}={fd}" for name, fd in maps.items())]
    kinds = {"socket": module.BPF.SOCKET_FILTER, "uprobe": module.BPF.KPROBE, "raw_tracepoint": module.BPF.RAW_TRACEPOINT}
    multi = attach.has_uprobe_multi()
    programs: dict[str, int] = {}
    try:
        with _whole(tree):
            compiled = module.BPF(text=text.encode(), cflags=flags)
        for name, kind in PROGRAMS[source].items():
            wanted = attach.BPF_TRACE_UPROBE_MULTI if multi and kind == "uprobe" else -1
            programs[name] = os.dup(compiled.load_func(name.encode(), kinds[kind], attach_type=wanted).fd)
        compiled.cleanup()
    except Exception as error:  # BCC raises Exception itself, and prints what clang or the verifier said
        for fd in [*programs.values(), *maps.values()]:
            os.close(fd)
        raise KernelError(f"BCC could not compile or load {source}.bpf.c: {error}") from None
    return programs, maps
