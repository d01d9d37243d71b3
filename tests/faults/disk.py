"""A small disk of its own: a tmpfs, filled to the page and freed again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Disk:
    """Mounted at `folder`."""

    folder: Path

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def fill(self, free_pages: int = 0) -> None:
        """Leave so many pages free, and no more."""
        self.free()
        found = os.statvfs(self.folder)
        size = found.f_bavail * found.f_frsize - free_pages * PAGE_BYTES
        with self._filler.open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, max(PAGE_BYTES, size))

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


@contextlib.contextmanager
def disk(folder: Path, size: str) -> Iterator[Disk]:
    """Mount one; needs root. A lazy unmount: whatever still has a file open there is the failing test's."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "holdfast-test", str(folder)], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
