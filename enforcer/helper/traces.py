"""What an instance leaves on the machine: a record in its runtime folder, the control socket, the pins, the lock.

The record is there so that `holdfast stop` can remove what an instance that was killed left behind.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from enforcer.helper import lock
from enforcer.kernel.bpffs import PinDir

RECORD = "instance.json"
CONTROL = "control.sock"


class Instance(BaseModel):
    """<runtime dir>/instance.json. pid: the helper's. netns: the namespace's inode."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pid: int
    port: int
    netns: int
    pins: str


class StillRunning(Exception):
    """The instance lives: it is to be stopped, not removed."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"the instance is running (pid {pid})")
        self.pid = pid


def write(runtime_dir: Path, instance: Instance) -> None:
    temporary = runtime_dir / f".{RECORD}.{os.getpid()}"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(instance.model_dump_json())
    temporary.rename(runtime_dir / RECORD)


def read(runtime_dir: Path) -> Instance | None:
    """The record, or None where there is none that can be read."""
    try:
        return Instance.model_validate_json((runtime_dir / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None


def remove_traces(runtime_dir: Path) -> list[str]:
    """Remove everything a dead instance left; what was removed, for people. Root only.

    Where it was guarding, its server is reachable again, unguarded.

    Raises:
        StillRunning: the instance lives.
    """
    removed: list[str] = []
    instance = read(runtime_dir)
    if instance is not None:
        try:
            held = lock.take(instance.netns, instance.port)
        except lock.Held as running:
            raise StillRunning(running.pid) from None
        pins = PinDir(instance.netns, instance.port)
        if pins.remove():
            removed.append(str(pins.path))
        lock.release(held, instance.netns, instance.port)
    return removed + remove_files(runtime_dir)


def remove_files(runtime_dir: Path, but_record: bool = False) -> list[str]:
    """The files in the runtime folder, and the folder if it is empty then. but_record: pins remain, and `holdfast stop` must find them."""
    removed = []
    for name in (CONTROL,) if but_record else (CONTROL, RECORD):
        path = runtime_dir / name
        if path.exists() or path.is_symlink():
            path.unlink()
            removed.append(str(path))
    if runtime_dir.is_dir() and not any(runtime_dir.iterdir()):
        runtime_dir.rmdir()
    return removed
