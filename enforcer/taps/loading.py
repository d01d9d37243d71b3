"""The two loaders behind one interface: programs and maps by name, as descriptors. Everything after loading is the same code.

libbpf    (default) objects that clang compiled beforehand; needs no compiler
bcc       BCC compiles the same C at start; for kernels without BTF (enforcer/taps/bcc.py)
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from enforcer.kernel import attach, libbpf
from enforcer.kernel.errors import Missing
from enforcer.taps import bcc, records
from enforcer.taps.sources import MAPS, PROGRAMS, Source

LoaderName = Literal["libbpf", "bcc"]
OBJECTS = Path(__file__).parent.parent / "kernel" / "objects"
RING_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """programs, maps: name → descriptor, owned by this until `close`. multi: the uprobe programs are for uprobe_multi links."""

    programs: dict[str, int]
    maps: dict[str, int]
    ring_bytes: int
    multi: bool
    close: Callable[[], None]


def load(source: Source, loader: LoaderName = "libbpf", ring_bytes: int = RING_BYTES) -> Loaded:
    """Verify and load the programs of `tap` or `tls`; nothing is attached.

    ring_bytes: a power of two, a page at least.
    Raises: Missing (the machine lacks something: says what), KernelError (records differ), BpfError (the verifier said no).
    """
    if loader == "bcc":
        programs, maps = bcc.load(source, ring_bytes)
        return Loaded(programs, maps, ring_bytes, attach.has_uprobe_multi(), _closing([*programs.values(), *maps.values()]))
    return _libbpf(source, ring_bytes)


def _closing(descriptors: list[int]) -> Callable[[], None]:
    def close() -> None:
        while descriptors:
            os.close(descriptors.pop())

    return close


def _libbpf(source: Source, ring_bytes: int) -> Loaded:
    path = OBJECTS / f"{source}.bpf.o"
    if not path.is_file():
        raise Missing(f"the BPF program {path.name} was not built (make -C bpf)")
    records.check(path)
    opened = libbpf.Object(path)
    multi = attach.has_uprobe_multi()
    try:
        opened.set_max_entries(f"{source}_ring", ring_bytes)
        if multi:
            for name, kind in PROGRAMS[source].items():
                if kind == "uprobe":
                    opened.set_attach_type(name, attach.BPF_TRACE_UPROBE_MULTI)
        opened.load()
        programs = {name: opened.program_fd(name) for name in PROGRAMS[source]}
        maps = {name: opened.map_fd(name) for name in MAPS[source]}
    except libbpf.BpfError:
        opened.close()
        raise
    return Loaded(programs, maps, ring_bytes, multi, opened.close)


def write_settings(loaded: Loaded, name: str, value: ctypes.Structure) -> None:
    """Key 0 of a settings map; takes effect with the next packet or call."""
    libbpf.map_update(loaded.maps[name], bytes(4), bytes(value))
