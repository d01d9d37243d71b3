"""Whether this kernel's return probes end processes that are under seccomp. Tried, not looked up: fixes are in some older kernels too.

On x86-64 from Linux 6.11 on, a probed function returns through a system call of its own, which a seccomp filter that does not know it
refuses or kills for; later kernels let it pass every filter.
"""

from __future__ import annotations

import ctypes
import os

import seccomp  # type: ignore[import-not-found, unused-ignore]  # Debian's python3-seccomp; it has no types

from enforcer.kernel import attach
from enforcer.kernel.libbpf import BpfError
from enforcer.taps import elf, processes
from enforcer.taps.loading import Loaded

_TRIED = "getpagesize"
"""Of libc: does nothing, and only our child's is probed."""


def returns_are_safe(loaded: Loaded) -> bool:
    """A child of ours under a strict filter returns from a probed function: whether it lives. False also where that cannot be tried."""
    libc = next((each for each in processes.mappings(os.getpid()) if os.path.basename(each.path).startswith("libc.so")), None)
    file = processes.open_mapped(libc) if libc is not None else None
    if file is None:
        return False
    try:
        offset = elf.functions(lambda at, size: os.pread(file, size, at), [_TRIED]).get(_TRIED)
        return offset is not None and _lives(loaded, file, offset)
    except (BpfError, elf.NotElf):
        return False
    finally:
        os.close(file)


def _lives(loaded: Loaded, file: int, offset: int) -> bool:
    function = getattr(ctypes.CDLL(None), _TRIED)
    function()
    start, go = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(go)
            os.read(start, 1)
            _confine()
            function()
            os._exit(0)
        finally:
            os._exit(1)
    try:
        os.close(start)
        # A program that finds nothing to do: no SSL_read of this thread has begun.
        link = attach.uprobe(loaded.programs["ssl_read_done"], file, offset, True, loaded.multi, child)
        os.write(go, b".")
    except BpfError:
        os.close(go)
        os.waitpid(child, 0)
        raise
    os.close(go)
    status = os.waitpid(child, 0)[1]
    os.close(link)
    return status == 0


def _confine() -> None:
    rules = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    for name in ("exit_group", "futex", "madvise", "munmap", "brk", "rt_sigreturn"):
        rules.add_rule(seccomp.ALLOW, name)
    rules.load()
