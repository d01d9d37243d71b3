"""`holdfast taps`: every TLS library and program that runs here, what the taps see of it, and what they do not."""

from __future__ import annotations

import os
from dataclasses import asdict

from rich.markup import escape

from enforcer.cli import render
from enforcer.cli.places import Json, RuntimeDir, StateDir
from enforcer.taps.survey import survey


def taps(as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """List the TLS that runs on this machine: what of it can be seen, and what cannot. Attaches nothing."""
    found, hidden = survey()
    if as_json:
        targets = [{**asdict(each), "kind": each.kind.value, "programs": _programs(each.pids)} for each in found]
        render.print_json({"targets": targets, "hidden_processes": hidden})
        return
    for each in found:
        mark = "[green]seen[/]    " if each.covered else "[yellow]not seen[/]"
        render.out.print(f"{mark} {escape(render.safe(each.path))} ({each.kind.value}), {len(each.pids)} processes", soft_wrap=True)
        for line in (", ".join(each.covered), each.uncovered):
            if line:
                render.out.print(f"           {line}", soft_wrap=True)
    if hidden:
        render.out.print(f"{hidden} processes of other users could not be looked at: run as root.")


def _programs(pids: tuple[int, ...]) -> list[str]:
    names = set()
    for pid in pids:
        try:
            names.add(os.readlink(f"/proc/{pid}/exe"))
        except OSError:
            continue
    return sorted(names)
