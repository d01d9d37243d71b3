"""The TLS taps as the helper keeps them: which files are probed, which processes use them, and what comes later.

Order at the start: follow mappings first, then look through /proc, so that nothing falls between. A file is looked at once, however many
processes have it; its probes fire in all of them, later ones too.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from enforcer.kernel import attach, libbpf
from enforcer.taps import loading, offsets, processes, records, seccomp, target
from enforcer.taps.loading import LoaderName
from enforcer.taps.mappings import Mappings
from enforcer.taps.probes import Target, attach_to, detach
from enforcer.taps.processes import Mapping
from enforcer.taps.target import TlsKind
from enforcer.taps.wire import WAKE_BYTES

_MOST_FILES = 65536
"""Executable files looked at; one who makes more of them than this is not followed any further, and `status` says so."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose plaintext is copied; 0 and empty do not restrict. cgroup: id and depth below the root of cgroup2, with all below it.

    netns: inode. ignored: processes of ours.
    """

    netns: int = 0
    cgroup: int = 0
    cgroup_level: int = 0
    pids: frozenset[int] = frozenset()
    ignored: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Followed:
    """What one look brought. fresh: targets that were not known. unprobed: processes that had run a fresh target's code before."""

    fresh: tuple[Target, ...] = ()
    unprobed: int = 0


class TlsTaps:
    """Loaded; `follow` or `scan` attaches."""

    def __init__(
        self,
        scope: Scope,
        loader: LoaderName = "libbpf",
        ring_bytes: int = loading.RING_BYTES,
        wake_bytes: int = WAKE_BYTES,
    ) -> None:
        """Raises Missing, KernelError, BpfError."""
        self.targets: dict[tuple[int, int], Target] = {}
        self.full = False
        self._seen: set[tuple[int, int]] = set()
        self._wake_bytes = wake_bytes
        self._offsets = offsets.kernel_offsets()
        self._watched: dict[int, int] = {}
        self._tracepoints: list[int] = []
        self.loaded = loading.load("tls", loader, ring_bytes)
        try:
            self._returns = seccomp.returns_are_safe(self.loaded)
            self.restrict(scope)
            for name in ("process_started", "process_ended"):
                kernel_name = "sched_process_exec" if name == "process_started" else "sched_process_exit"
                self._tracepoints.append(attach.raw_tracepoint(self.loaded.programs[name], kernel_name))
            self.mappings = Mappings()
        except BaseException:
            self._let_go()
            raise

    def restrict(self, scope: Scope) -> None:
        """Whose plaintext is copied from now on."""
        wanted = dict.fromkeys(scope.pids, records.PID_WATCHED) | dict.fromkeys(scope.ignored, records.PID_IGNORED)
        for pid, rule in wanted.items():
            libbpf.map_update(self.loaded.maps["tls_pids"], struct.pack("=I", pid), struct.pack("=I", rule))
        for pid in self._watched.keys() - wanted.keys():
            libbpf.map_delete(self.loaded.maps["tls_pids"], struct.pack("=I", pid))
        self._watched = wanted
        settings = records.TlsSettings(scope.cgroup, scope.cgroup_level, scope.netns, int(bool(scope.pids)), self._wake_bytes, **self._offsets)
        loading.write_settings(self.loaded, "tls_settings", settings)

    def scan(self) -> Followed:
        """Look at every process there is."""
        return self._look(mapping for pid in processes.pids() for mapping in processes.mappings(pid))

    def follow(self) -> Followed:
        """Take what `mappings.fds` announced. Looks through /proc where some announcements were lost."""
        new, lost = self.mappings.read()
        return self.scan() if lost else self._look(new, announced=True)

    def _look(self, mappings: Iterable[Mapping], announced: bool = False) -> Followed:
        fresh, unprobed = list[Target](), 0
        for mapping in mappings:
            known = self.targets.get(mapping.file)
            if known is not None:
                known.pids.add(mapping.pid)
                unprobed += known in fresh
                continue
            if mapping.file in self._seen or mapping.inode == 0:
                continue
            made = self._consider(mapping)
            if made is not None:
                fresh.append(made)
                unprobed += 1
        return Followed(tuple(fresh), unprobed)

    def _consider(self, mapping: Mapping) -> Target | None:
        if len(self._seen) >= _MOST_FILES:
            self.full = True
            return None
        file = processes.open_mapped(mapping)
        if file is None:  # it has ended, or unmapped it; the next who maps the file is announced again
            return None
        try:
            self._seen.add(mapping.file)
            program = mapping.program or processes.name(mapping.pid) == mapping.path
            found = target.inspect(file, program)
            if found.kind is TlsKind.NOTHING:
                return None
            made = attach_to(file, mapping.file, mapping.path, found, self.loaded, self._returns)
        finally:
            os.close(file)
        made.pids.add(mapping.pid)
        self.targets[mapping.file] = made
        return made

    def forget_ended(self) -> None:
        """Take processes that have ended out of the targets' lists."""
        running = set(processes.pids())
        for each in self.targets.values():
            each.pids.intersection_update(running)

    def close(self) -> None:
        detach(self.targets.values())
        self.mappings.close()
        self._let_go()

    def _let_go(self) -> None:
        for fd in self._tracepoints:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.loaded.close()
