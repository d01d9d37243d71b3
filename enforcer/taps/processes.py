"""What /proc says about processes: which executable files they have mapped, and whether they are under seccomp. Read by the helper."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_MAPPED = re.compile(rb"^([0-9a-f]+-[0-9a-f]+) ..x. [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(.+)$", re.M)
_MOST_MAPS_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Mapping:
    """An executable mapping of a file. span: as in /proc/PID/map_files. path: as the process names it; shown only."""

    pid: int
    span: str
    device: int
    inode: int
    path: str
    program: bool

    @property
    def file(self) -> tuple[int, int]:
        return self.device, self.inode


def pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdecimal()]


def mappings(pid: int) -> Iterator[Mapping]:
    """Empty where the process has ended or may not be looked at."""
    try:
        with (PROC / str(pid) / "maps").open("rb") as maps:
            text = maps.read(_MOST_MAPS_BYTES)
        program = os.stat(PROC / str(pid) / "exe")
    except OSError:
        return
    for span, major, minor, inode, path in _MAPPED.findall(text):
        if inode == b"0":
            continue
        device = os.makedev(int(major, 16), int(minor, 16))
        yield Mapping(pid, span.decode(), device, int(inode), path.decode("utf-8", "replace"), int(inode) == program.st_ino)


def open_mapped(mapping: Mapping) -> int | None:
    """The very file that is mapped, whatever lies at its path by now or in whichever mount namespace. None where the mapping is gone."""
    try:
        return os.open(PROC / str(mapping.pid) / "map_files" / mapping.span, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None


def name(pid: int) -> str:
    """Its executable's path, or "" where it has ended."""
    try:
        return os.readlink(PROC / str(pid) / "exe")
    except OSError:
        return ""


def is_kernel_thread(pid: int) -> bool:
    """Also true of one that has ended. Such have no executable and map nothing."""
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return True
    return bool(int(text.rpartition(b")")[2].split()[6]) & 0x00200000)  # PF_KTHREAD (include/linux/sched.h)
