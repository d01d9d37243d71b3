"""Where Holdfast's pins live: /sys/fs/bpf/holdfast/<netns inode>-<port>/, readable by root alone.

An instance's folder holds `link` (absent with `fail = "open"`) and `program-<pid>`. The program is pinned before it is attached
and unpinned after it is detached, so an attached program without such a pin is never one of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enforcer.kernel import libbpf
from enforcer.kernel.errors import Missing
from enforcer.privilege import libc

BPFFS = Path("/sys/fs/bpf")
ROOT = BPFFS / "holdfast"

_BPF_FS_MAGIC = "bpf"


@dataclass(frozen=True, slots=True)
class PinDir:
    """The pins of one instance. netns: inode of the namespace."""

    netns: int
    port: int

    @property
    def path(self) -> Path:
        return ROOT / f"{self.netns}-{self.port}"

    @property
    def link(self) -> Path:
        return self.path / "link"

    def program(self, pid: int) -> Path:
        return self.path / f"program-{pid}"

    def create(self) -> None:
        """Make the folder (and mount bpffs where it is not). Raises Missing."""
        mount_if_missing()
        for folder in (ROOT, self.path):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)

    def remove_programs(self, but: Path | None = None) -> None:
        if self.path.is_dir():
            for pinned in self.path.glob("program-*"):
                if pinned != but:
                    pinned.unlink(missing_ok=True)

    def remove(self) -> bool:
        """Unpin everything; whether there was anything. A link that nobody else holds detaches with its pin."""
        if not self.path.is_dir():
            return False
        self.link.unlink(missing_ok=True)
        self.remove_programs()
        self.path.rmdir()
        return True


def mounted() -> bool:
    """Whether a BPF file system is mounted at /sys/fs/bpf."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        return any(fields[1] == str(BPFFS) and fields[2] == _BPF_FS_MAGIC for fields in (line.split() for line in mounts))


def mount_if_missing() -> None:
    if mounted():
        return
    try:
        libc.mount("bpf", str(BPFFS), "bpf", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC, "mode=0700")
    except OSError as error:
        raise Missing(f"bpffs is not mounted at {BPFFS} and cannot be mounted there ({error.strerror})") from None


def instances() -> list[PinDir]:
    """Every instance that has pins, of every namespace."""
    if not ROOT.is_dir():
        return []
    found = []
    for folder in ROOT.iterdir():
        netns, _, port = folder.name.partition("-")
        if netns.isdecimal() and port.isdecimal():
            found.append(PinDir(int(netns), int(port)))
    return found


def our_programs(netns: int) -> set[int]:
    """Ids of all programs pinned by Holdfast instances of one namespace."""
    return {program for pins in instances() if pins.netns == netns for program in _program_ids(pins)}


def _program_ids(pins: PinDir) -> Iterator[int]:
    for path in pins.path.glob("program-*"):
        fd = libbpf.get(path)
        if fd is not None:  # None: unpinned since
            try:
                yield libbpf.prog_info(fd).id
            finally:
                os.close(fd)
