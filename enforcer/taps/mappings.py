"""Every executable mapping on the machine as it is made: perf's side-band records (PERF_RECORD_MMAP2), one small ring for each CPU.

So a library that is loaded later and a program that is started later are found within a wake-up, not by the next look at /proc. Needs
CAP_PERFMON or CAP_SYS_ADMIN. Formats: include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import mmap
import os
import struct

from enforcer.kernel.attach import PerfEventAttr, perf_event_open
from enforcer.taps.processes import Mapping

_PERF_TYPE_SOFTWARE = 1
_PERF_COUNT_SW_DUMMY = 9
_DISABLED, _MMAP, _WATERMARK, _MMAP2 = 1 << 0, 1 << 8, 1 << 14, 1 << 23
_RECORD_LOST, _RECORD_MMAP2 = 2, 10
_HEADER = struct.Struct("=IHH")
_MMAP2_BODY = struct.Struct("=IIQQQIIQQII")
_DATA_PAGES = 64
_HEAD_AT, _TAIL_AT = 1024, 1032


class Mappings:
    """fds: to wait on; `read` when any is readable."""

    def __init__(self) -> None:
        """Raises BpfError where the kernel does not let us."""
        self.fds: list[int] = []
        self._rings: list[mmap.mmap] = []
        try:
            for cpu in _online():
                attr = PerfEventAttr(type=_PERF_TYPE_SOFTWARE, config=_PERF_COUNT_SW_DUMMY, sample_period=1, bits=_MMAP | _MMAP2 | _WATERMARK, wakeup=1)
                self.fds.append(perf_event_open(attr, -1, cpu))
                self._rings.append(mmap.mmap(self.fds[-1], (1 + _DATA_PAGES) * mmap.PAGESIZE))
        except BaseException:
            self.close()
            raise

    def read(self) -> tuple[list[Mapping], bool]:
        """The mappings since the last call, and whether some were lost: then /proc has to be looked through."""
        found: list[Mapping] = []
        lost = False
        for ring in self._rings:
            head, tail = struct.unpack_from("=QQ", ring, _HEAD_AT)
            size = _DATA_PAGES * mmap.PAGESIZE
            while tail < head:
                kind, _misc, length = _HEADER.unpack(_wrapped(ring, tail, _HEADER.size, size))
                if length < _HEADER.size:
                    lost, tail = True, head
                    break
                if kind == _RECORD_MMAP2:
                    found.append(_mapping(_wrapped(ring, tail + _HEADER.size, length - _HEADER.size, size)))
                elif kind == _RECORD_LOST:
                    lost = True
                tail += length
            struct.pack_into("=Q", ring, _TAIL_AT, tail)
        return found, lost

    def close(self) -> None:
        for ring in self._rings:
            ring.close()
        for fd in self.fds:
            os.close(fd)
        self._rings, self.fds = [], []


def _wrapped(ring: mmap.mmap, at: int, length: int, size: int) -> bytes:
    start = at % size
    data = ring[mmap.PAGESIZE + start : mmap.PAGESIZE + min(start + length, size)]
    return data + ring[mmap.PAGESIZE : mmap.PAGESIZE + length - len(data)]


def _mapping(body: bytes) -> Mapping:
    pid, _tid, address, length, _offset, major, minor, inode, _generation, _prot, _flags = _MMAP2_BODY.unpack_from(body)
    path = body[_MMAP2_BODY.size :].split(b"\0", 1)[0].decode("utf-8", "replace")
    return Mapping(pid, f"{address:x}-{address + length:x}", os.makedev(major, minor), inode, path, False)


def _online() -> list[int]:
    with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
        text = file.read().strip()
    cpus: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus
