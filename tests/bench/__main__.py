"""Run every bench, or those that are named, and write build/bench.json. A bench that cannot run costs the exit code, not the others' figures."""

from __future__ import annotations

import importlib
import json
import sys
import traceback

from rich.console import Console
from rich.table import Table

from tests.bench.figure import Figure
from tests.real.process import ROOT

BENCHES = ("relay", "held", "stages", "evidence", "detection", "definitions", "outgoing", "flows", "taps", "sandbox")
"""Modules of this package with a `run() -> list[Figure]`."""


def main() -> int:
    """0 when all ran (whether or not goals were met), 1 when one could not."""
    console, found, broken = Console(), list[Figure](), False
    for name in sys.argv[1:] or BENCHES:
        try:
            found += importlib.import_module(f"tests.bench.{name}").run()
        except Exception:
            broken = True
            console.print(f"[red]{name} did not run[/red]")
            traceback.print_exc()
    goals = Table("figure", "value", "goal", "", title="Goals")
    for one in found:
        if one["goal"] is not None:
            goals.add_row(one["id"], f"{one['value']:,.2f} {one['unit']}", f"{one['goal']:g}", "met" if one["met"] else "NOT MET")
    console.print(goals)
    target = ROOT / "build" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    if sys.argv[1:] and target.exists():  # of the benches that were not named, what stands there stays
        again = {one["id"] for one in found}
        found = [one for one in json.loads(target.read_text()) if one["id"] not in again] + found
    target.write_text(json.dumps(found, indent=1) + "\n")
    console.print(f"{len(found)} figures in {target.relative_to(ROOT)}")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
