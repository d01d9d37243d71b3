"""A twin's control group: what bounds its memory and processes, and by which all of them are found, stopped and killed.

Version 2 (`memory.max`, `pids.max`, `cpu.weight`) where the controllers are there, else version 1 (`memory.limit_in_bytes`, `pids.max`, `cpu.shares`):
Documentation/admin-guide/cgroup-v{1/memory,1/pids,2}.rst.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "pids")
LOW_WEIGHT = 10
FULL_WEIGHT = 100
"""Of cpu.weight (its default); cpu.shares of version 1 are 1024 at the full one."""


_JOIN = '[ "$PPID" = "$1" ] || exit 125; left=$2; shift 2; while [ "$left" -gt 0 ]; do echo $$ > "$1" || exit 125; shift; left=$((left - 1)); done; exec "$@"'


class NoGroups(Exception):
    """Twins cannot be bounded here. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Group:
    """folders: one of version 2, or one for each controller of version 1. The first's `cgroup.procs` names all members."""

    folders: tuple[Path, ...]

    def joining(self, command: list[str]) -> list[str]:
        """A command that is a member from its first moment: a shell that moves itself in, and then becomes it, or ends. It dies with the caller.

        A move takes milliseconds, for which a function between fork and exec would keep the whole caller.
        """
        return [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "/bin/sh",
            "-c",
            _JOIN,
            "sh",
            str(os.getpid()),
            str(len(self.folders)),
            *(str(folder / "cgroup.procs") for folder in self.folders),
            *command,
        ]

    def adopt(self, pids: tuple[int, ...]) -> None:
        """Move other processes in, so that they are bounded and end with the rest. What they hold already stays charged where it was. OSError."""
        for folder in self.folders:
            for pid in pids:
                (folder / "cgroup.procs").write_text(str(pid))

    def members(self) -> list[int]:
        if not self.folders:
            return []
        try:
            return [int(line) for line in (self.folders[0] / "cgroup.procs").read_text().split()]
        except FileNotFoundError:
            return []

    def signal(self, number: signal.Signals) -> None:
        for pid in self.members():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, seconds: float = 1.0) -> bool:
        """Stop all members, and wait until they stand (proc_pid_stat(5), state). False where some do not after `seconds`."""
        until = time.monotonic() + seconds
        self.signal(signal.SIGSTOP)
        while any(state not in "TtZX" for pid in self.members() for state in _states(pid)):
            if time.monotonic() > until:
                return False
            time.sleep(0.0005)
            self.signal(signal.SIGSTOP)  # those that were born meanwhile
        return True

    def weigh(self, weight: int) -> None:
        """Its share of the CPUs: the full one while somebody waits for it, a low one while it is made and unmade."""
        for folder in self.folders:
            for file, value in (("cpu.weight", weight), ("cpu.shares", weight * 1024 // FULL_WEIGHT)):
                with suppress(FileNotFoundError), open(folder / file, "r+") as written:
                    written.write(str(value))

    def schedule(self, policy: int) -> None:
        """Give every thread of the members a scheduling policy (sched(7)): SCHED_IDLE while nobody waits, SCHED_OTHER for a call."""
        for pid in self.members():
            with suppress(FileNotFoundError, ProcessLookupError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    with suppress(ProcessLookupError):
                        os.sched_setscheduler(int(task), policy, os.sched_param(0))

    def kill(self, seconds: float = 5.0) -> bool:
        """Kill all members, also those that are born meanwhile, and remove the group. False where some are left after `seconds`."""
        until = time.monotonic() + seconds
        while self.members():
            self.signal(signal.SIGKILL)
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        gone = True
        for folder in self.folders:
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > until:
                        gone = False
                        break
                    time.sleep(0.001)
        return gone


def _states(pid: int) -> list[str]:
    """Of each of its threads."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(FileNotFoundError, ProcessLookupError):
                found.append(Path(f"/proc/{pid}/task/{task}/stat").read_text().rpartition(")")[2].split()[0])
    return found


def create(name: str, memory_bytes: int, threads: int) -> Group:
    """A new group below the caller's own. NoGroups where memory or processes cannot be bounded."""
    found = _version2() or _version1()
    if not found:
        raise NoGroups("no cgroup with the memory and pids controllers is mounted, so a twin could not be bounded")
    group = Group(tuple(folder / name for folder in found))
    try:
        for folder in group.folders:
            folder.mkdir(exist_ok=False)
            for file, value in (
                ("memory.max", memory_bytes),
                ("memory.swap.max", 0),
                ("memory.limit_in_bytes", memory_bytes),
                ("pids.max", threads),
            ):
                if (folder / file).exists():
                    (folder / file).write_text(str(value))
        group.weigh(LOW_WEIGHT)
    except OSError as error:
        group.kill()
        raise NoGroups(f"a cgroup could not be made: {error.strerror}") from None
    return group


def find(name: str) -> Group:
    """The group of a name, which need not exist any more."""
    return Group(tuple(folder / name for folder in _version2() or _version1()))


def _version2() -> tuple[Path, ...]:
    for mounted, kind, _ in _mounts():
        if kind == "cgroup2":
            top = mounted / "holdfast-twins"
            with suppress(OSError):
                _switch_on(mounted)
                top.mkdir(exist_ok=True)
                _switch_on(top)
                return (top,)
    return ()


def _switch_on(folder: Path) -> None:
    if not set(CONTROLLERS) <= set((folder / "cgroup.controllers").read_text().split()):
        raise OSError("controllers are missing")
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS))
    with suppress(OSError):
        (folder / "cgroup.subtree_control").write_text("+cpu")


def _version1() -> tuple[Path, ...]:
    found: dict[str, Path] = {}
    for mounted, kind, options in _mounts():
        if kind == "cgroup":
            for controller in {*CONTROLLERS, "cpu"} & set(options.split(",")):
                top = mounted / "holdfast-twins"
                with suppress(OSError):
                    top.mkdir(exist_ok=True)
                    found[controller] = top
    return tuple(dict.fromkeys(found[name] for name in sorted(found, reverse=True))) if set(CONTROLLERS) <= set(found) else ()


def _mounts() -> list[tuple[Path, str, str]]:
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [(Path(fields[1]), fields[2], fields[3]) for fields in lines if len(fields) > 3]
