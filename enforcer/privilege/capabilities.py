"""Capabilities: what the helper keeps once everything is set up, and how a process drops the rest.

Numbers: include/uapi/linux/capability.h.
"""

from __future__ import annotations

from pathlib import Path

from enforcer.privilege import libc

CHOWN = 0
DAC_OVERRIDE = 1
DAC_READ_SEARCH = 2
FOWNER = 3
FSETID = 4
KILL = 5
SETGID = 6
SETUID = 7
SETPCAP = 8
NET_ADMIN = 12
NET_RAW = 13
SYS_PTRACE = 19
SYS_ADMIN = 21
SYS_NICE = 23
SETFCAP = 31
PERFMON = 38
BPF = 39
CHECKPOINT_RESTORE = 40

NEEDED_TO_START: dict[int, str] = {
    SYS_ADMIN: "CAP_SYS_ADMIN",
    NET_ADMIN: "CAP_NET_ADMIN",
    BPF: "CAP_BPF",
    SETUID: "CAP_SETUID",
    SETGID: "CAP_SETGID",
    SETPCAP: "CAP_SETPCAP",
    KILL: "CAP_KILL",
}

KEPT: dict[int, str] = {
    NET_ADMIN: "lists the programs attached to the namespace, every tick",
    SYS_ADMIN: "gives each new daemon and worker its own mount and network namespace; names a foreign program",
    SETUID: "turns each new daemon and worker into its own user",
    SETGID: "the same, for its group",
    SETPCAP: "empties the bounding set of each new daemon and worker",
    KILL: "ends a daemon or worker, which belongs to another user",
    DAC_READ_SEARCH: "a new daemon or worker imports Holdfast, which may lie in a folder of another user",
}
"""What the helper keeps. Not kept: BPF (its maps are open), DAC_OVERRIDE, CHOWN, SYS_MODULE, … and every other."""

TAPS: dict[int, str] = {
    BPF: "loads the taps, and attaches them to processes and libraries as they come",
    PERFMON: "attaches uprobes, and hears of executable mappings as they are made",
    NET_RAW: "a packet socket for the socket filter",
    SYS_PTRACE: "sees which sockets and files other users' processes hold (/proc/PID/fd, maps)",
    CHECKPOINT_RESTORE: "opens the very file that a process has mapped (/proc/PID/map_files)",
    DAC_READ_SEARCH: "the same, where /proc/PID and the file belong to another user",
}
"""What the process of the taps has, and the helper keeps for it, unless told to start without taps."""

TAPS_FOLLOW: dict[int, str] = {number: why for number, why in TAPS.items() if number != NET_RAW}
"""What the process of the taps keeps once its packet socket is made."""

KEEPER: dict[int, str] = {
    SYS_ADMIN: "mounts state for a twin; runsc makes the twin's namespaces",
    DAC_OVERRIDE: "reads the state of other users' servers, and mounts below folders that are theirs",
    CHOWN: "a copy of state has the owners of what it is copied from",
    FOWNER: "the same, for modes and times",
    FSETID: "the same, for set-group-id bits",
    SETUID: "runsc turns the twin's processes into nobody; a copy of a database runs as nobody",
    SETGID: "the same, for the group",
    SETFCAP: "runsc maps root into the twin's user namespace, which the kernel lets nobody do without it (user_namespaces(7))",
    SETPCAP: "empties the bounding set of a copy of a database",
    SYS_NICE: "a twin that runs a call leaves the idle priority that it was restored at (sched(7))",
    KILL: "ends the processes of nobody",
}
"""What the keeper of the twins has, and the helper keeps for it where the policy names a twin. Found by leaving each out.

runsc, which the keeper starts, has no others."""


def effective() -> int:
    """The effective set of this process, as a mask."""
    return _set("CapEff")


def permitted() -> int:
    """What this process may have, as a mask."""
    return _set("CapPrm")


def _set(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1], 16)
    raise OSError("/proc/self/status names no capabilities")


def missing_to_start() -> list[str]:
    have = effective()
    return [name for number, name in NEEDED_TO_START.items() if not have >> number & 1]


def limit_to(kept: dict[int, str]) -> None:
    """Keep only these, in every set of the calling thread; nothing can be got back."""
    empty_bounding_set(but=kept)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    keep(kept)


def keep(kept: dict[int, str]) -> None:
    """These, as far as they are permitted, and no others from now on."""
    mask = sum(1 << number for number in kept) & permitted()
    libc.capset(mask, mask, 0)


def empty_bounding_set(but: dict[int, str] | None = None) -> None:
    libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    for number in range(last + 1):
        if not but or number not in but:
            libc.prctl(libc.PR_CAPBSET_DROP, number)
