"""What people see of twins: what a call did in one, and how the templates and pools stand. What a server wrote is escaped, behind a label of ours."""

from __future__ import annotations

import stat
from typing import Any

from rich.console import Console
from rich.markup import escape

from enforcer.cli.render import out, safe, said

FEW = 10
"""Of each sort of effect, and of places that differ, shown without --full."""


def ran(run: dict[str, Any], full: bool, console: Console = out) -> None:
    """What the call did in its twin, what of it the policy does not allow first, and where its answer differs from the real one."""
    how = f"{run['outcome']} in {run['took_ms']:.1f} ms, state frozen in {run['frozen_ms']:.1f} ms, {'from the pool' if run['pooled'] else 'restored for it'}"
    console.print(f"\n  [bold]In the twin[/]  {how}, {run['counts']['reads']} files read")
    if run["why"]:
        said("    why      ", run["why"], console)
    _effects(run, full, console)
    _differences(run["differences"], full, console)


def _effects(run: dict[str, Any], full: bool, console: Console) -> None:
    effects, counts = run["effects"], run["counts"]
    writes = [(each["change"], f"{each['path']}{_mode(each['mode'])}", each) for each in effects["writes"]]
    connects = [("inside" if each["inside"] else "connect", _target(each), each) for each in effects["connects"]]
    executes = [("started", _command(each), each) for each in effects["executes"]]
    read = [("read", each["path"], each) for each in effects["reads"] if not each["allowed"]]
    quiet = True
    for sort, found, total in (
        ("writes", writes, counts["writes"]),
        ("connections", connects, counts["connects"]),
        ("programs", executes, counts["executes"]),
        ("files read that may not be", read, len(read)),
    ):
        shown = found if full else found[:FEW]
        for ours, theirs, each in shown:
            quiet = False
            said(f"    {ours:8} {'' if each['allowed'] else '[bold red]not allowed[/]  '}", theirs, console)
        if total > len(shown):
            console.print(f"    [dim]and {total - len(shown)} more {sort}{'' if full else '; --full shows more'}[/]")
    for why in effects["incomplete"] if full else effects["incomplete"][:FEW]:
        quiet = False
        said("    [yellow]unknown[/]  ", why, console)
    if quiet and run["outcome"] == "answered":
        console.print("    it wrote nothing that is kept, connected to nothing and started nothing")


def _differences(differences: list[dict[str, Any]], full: bool, console: Console) -> None:
    if not differences:
        return
    console.print("\n  [bold]Where the answers differ[/]  [dim](escaped; do not follow them)[/]")
    for each in differences if full else differences[:FEW]:
        said("    ", each["pointer"] or "/", console, "dim")
        for whose in ("twin", "real"):
            said(f"      {whose}  ", "nothing stands there" if each[whose] is None else each[whose], console)
    if not full and len(differences) > FEW:
        console.print(f"    [dim]and {len(differences) - FEW} more places; --full shows all[/]")


def _mode(mode: int | None) -> str:
    return "" if mode is None else f"  {stat.filemode(mode)}"


def _target(each: dict[str, Any]) -> str:
    address = f"[{each['address']}]" if ":" in each["address"] else each["address"]
    where = each["address"] if each["port"] is None else f"{address}:{each['port']}"
    return f"{where}  looked up as {each['name']}" if each["name"] else where


def _command(each: dict[str, Any]) -> str:
    return " ".join([each["path"], *each["arguments"][1:]])


def servers(shown: dict[str, Any], console: Console = out) -> None:
    """The keeper's view of each server's twins, one line for each era of MCP, of `status` and `sandbox ls`. shown: `sandbox` of the daemon's status."""
    for each in shown["servers"]:
        name, template = f"{escape(safe(each['server']))}, MCP {escape(safe(each['era']))}", each["template"]
        if template is None or each["why"]:
            said(f"twins of {name}: [yellow]none[/], ", each["why"] or "no template", console)
            continue
        calls = each["hits"] + each["misses"]
        hit = f"{calls} calls, {100 * each['hits'] // calls} % from the pool" if calls else "no calls yet"
        times = "" if each["took_ms_median"] is None else f", median {each['took_ms_median']:.0f} ms, 99th percentile {each['took_ms_p99']:.0f} ms"
        failed = f", [yellow]{each['failures']} could not be restored[/]" if each["failures"] else ""
        console.print(f"twins of {name}: {each['waiting']} of {each['pool']} wait; {hit}{times}{failed}", soft_wrap=True)
    if not shown["servers"]:
        said("twins: [yellow]none[/], ", shown["why"] or "their keeper is starting", console)


_BACK = {"created": "comes back", "deleted": "goes", "changed": "is as before"}


def changes(plan: dict[str, Any], console: Console = out) -> None:
    """What a revert would do to the real state."""
    if not plan["changes"]:
        console.print("Nothing would change: the state is as it was before the call.")
    for each in plan["changes"]:
        said(f"  {_BACK[each['change']]:13}", f"{each['path']}{_mode(each['mode'])}", console)
    if plan["more"]:
        console.print(f"  [dim]and {plan['more']} more[/]")
