"""How a forked child gives everything up, in order. Its first half comes before it imports anything, its second after.

    begin    no descriptor but its own; dies with its parent; no new privileges, empty bounding set; mount and network namespaces
             of its own. Still root, so that it can import an installation that only root can read.
    finish   the jail; its own user and no group; not dumpable; limits; seccomp for all its threads. The keeper is another case: see there.

Any step that fails ends the child: there is no half-confined process.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from enforcer.privilege import capabilities, jail, libc, syscalls
from enforcer.privilege.identity import Identity

_JURY_MEMORY_BYTES = 4 << 30
_JURY_FILES = 64
"""Its connections, its event loop, and the resolver's files and sockets."""

_TAPS_MEMORY_BYTES = 4 << 30
_TAPS_FILES = 16384
"""A descriptor for each probe."""

_WITNESS_MEMORY_BYTES = 4 << 30
_WITNESS_FILES = 64
"""The rings, their counters, two sockets and the event loop."""

WINDOW_MEMORY_BYTES = 2 << 30
WINDOW_FILES = 400
"""Its connections, 256 at most, and a few of its own."""

_WORKER_MEMORY_BYTES = 6 << 30
"""Address space: a 64 MiB message of small objects takes about 2 GiB once parsed, and malloc's arenas double it."""


@dataclass(frozen=True, slots=True)
class DaemonConfinement:
    """state_dir: as the helper sees it; becomes /state."""

    identity: Identity
    state_dir: Path


@dataclass(frozen=True, slots=True)
class WorkerConfinement:
    identity: Identity


@dataclass(frozen=True, slots=True)
class JuryConfinement:
    """network: descriptor of the network namespace it reaches its endpoint from; one of those it keeps, and closed once entered."""

    identity: Identity
    network: int


@dataclass(frozen=True, slots=True)
class WindowConfinement:
    identity: Identity


@dataclass(frozen=True, slots=True)
class TapsConfinement:
    """Sees the machine's processes and files and stays in the helper's network namespace; keeps the capabilities of `TAPS_FOLLOW`."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class WitnessConfinement:
    identity: Identity


@dataclass(frozen=True, slots=True)
class KeeperConfinement:
    """Stays root, with the capabilities of `KEEPER` and no others, in the machine's file system: what it covers there it covers itself.

    No seccomp, and no limit that a process inherits: runsc, which it starts, makes nearly every system call, and puts its own filter on.
    """


Confinement = DaemonConfinement | WorkerConfinement | JuryConfinement | WindowConfinement | TapsConfinement | WitnessConfinement | KeeperConfinement


def begin(name: str, parent: int, keep: Iterable[int], confinement: Confinement) -> None:
    """keep: descriptors that the child goes on with. Standard input becomes empty, standard output the parent's standard error."""
    gc.freeze()  # the parent's objects stay: their finalizers would close descriptors that are ours by then
    _die_with(parent)
    os.setsid()  # a Ctrl-C at the terminal is the helper's to handle
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    _close_all_but({0, 1, 2, *keep})
    os.umask(0o022)  # the new root's folders are for the child's own user, too
    libc.name_process(name)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    capabilities.empty_bounding_set(but=capabilities.KEEPER if isinstance(confinement, KeeperConfinement) else None)
    if not isinstance(confinement, TapsConfinement):
        jail.own_namespaces()
    # Threads that a numeric library starts at its import would only cost: each worker is one of several processes.
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")


def finish(confinement: Confinement, parent: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not isinstance(confinement, DaemonConfinement):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")  # rather any other than the gate
    if isinstance(confinement, KeeperConfinement):
        return _finish_keeper(parent)
    match confinement:
        case DaemonConfinement():
            jail.enter(confinement.state_dir)
            _raise_nofile()
        case JuryConfinement():
            libc.setns(confinement.network, libc.CLONE_NEWNET)
            os.close(confinement.network)
            jail.enter_resolving()
            _limit(_JURY_MEMORY_BYTES, _JURY_FILES)
        case WindowConfinement():
            jail.enter_empty()
            _limit(WINDOW_MEMORY_BYTES, WINDOW_FILES)
        case WorkerConfinement():
            jail.enter_empty()
            _limit(_WORKER_MEMORY_BYTES, 0)
        case WitnessConfinement():
            jail.enter_empty()
            _limit(_WITNESS_MEMORY_BYTES, _WITNESS_FILES)
        case TapsConfinement():
            _limit(_TAPS_MEMORY_BYTES, _TAPS_FILES)
            libc.prctl(libc.PR_SET_KEEPCAPS, 1)
    os.umask(0o077)
    os.setgroups([])
    os.setresgid(confinement.identity.gid, confinement.identity.gid, confinement.identity.gid)
    os.setresuid(confinement.identity.uid, confinement.identity.uid, confinement.identity.uid)  # clears every capability of every thread
    if isinstance(confinement, TapsConfinement):  # asked to keep what it is permitted, of which it keeps these
        capabilities.keep(capabilities.TAPS_FOLLOW)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    _die_with(parent)  # changing the user cleared it (prctl(2))
    match confinement:
        case DaemonConfinement():
            syscalls.allow_daemon()
        case JuryConfinement():
            syscalls.allow_jury()
        case WindowConfinement():
            syscalls.allow_window()
        case WorkerConfinement() | WitnessConfinement():
            syscalls.allow_worker()
        case TapsConfinement():
            syscalls.allow_taps()


def _finish_keeper(parent: int) -> None:
    os.umask(0o077)
    os.setgroups([])
    capabilities.keep(capabilities.KEEPER)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    _die_with(parent)


def _limit(memory_bytes: int, files: int) -> None:
    for what, most in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_NOFILE, files), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(what, (most, most))


def _die_with(parent: int) -> None:
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _close_all_but(kept: set[int]) -> None:
    lowest = 0
    for fd in sorted(kept):
        if lowest < fd:  # closerange(0, 0) closes everything
            os.closerange(lowest, fd)
        lowest = fd + 1
    os.closerange(lowest, 1 << 20)


def _raise_nofile() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
