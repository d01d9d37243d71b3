"""What the taps see and do not see on this machine as it runs: every TLS that a process has mapped. Attaches nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass

from enforcer.taps import processes, target
from enforcer.taps.target import UNCOVERED, TlsKind


@dataclass(frozen=True, slots=True)
class Surveyed:
    """covered: functions of the file that can be probed. uncovered: what is not seen, or None. pids: who has it mapped."""

    path: str
    kind: TlsKind
    covered: tuple[str, ...]
    uncovered: str | None
    pids: tuple[int, ...]


def survey() -> tuple[list[Surveyed], int]:
    """Every file with TLS, and how many processes could not be looked at (those of others, without CAP_SYS_PTRACE)."""
    users: dict[tuple[int, int], set[int]] = {}
    found: dict[tuple[int, int], tuple[str, target.Found]] = {}
    hidden = 0
    for pid in processes.pids():
        mapped = list(processes.mappings(pid))
        hidden += not mapped and processes.name(pid) == "" and not processes.is_kernel_thread(pid)
        for mapping in mapped:
            users.setdefault(mapping.file, set()).add(pid)
            if mapping.file in found:
                continue
            file = processes.open_mapped(mapping)
            if file is None:
                continue
            try:
                found[mapping.file] = mapping.path, target.inspect(file, mapping.program)
            finally:
                os.close(file)
    listed = [
        Surveyed(path, each.kind, tuple(sorted(each.functions)), UNCOVERED.get(each.kind), tuple(sorted(users[file])))
        for file, (path, each) in found.items()
        if each.kind is not TlsKind.NOTHING
    ]
    return sorted(listed, key=lambda each: (not each.covered, each.path)), hidden
