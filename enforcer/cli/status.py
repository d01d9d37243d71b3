"""`holdfast status`: what is guarded, whether that is live, and what is held."""

from __future__ import annotations

from typing import Any

import typer
from rich.markup import escape

from enforcer.cli import render, twins
from enforcer.cli.places import Json, RuntimeDir, StateDir, control_socket
from enforcer.control import client


def status(as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """What is guarded, whether that is live and why not, what is held, and whether anything passed the gate by.

    Exit code 1 where it is not enforcing (or, in observe mode, not seeing), or where something passed the gate by since the start.
    """
    found = client.ask(control_socket(runtime), "status")
    if as_json:
        render.print_json(found)
    else:
        live = "[green]enforcing[/]" if found["enforcing"] else "[yellow]observing[/]" if found["mode"] == "observe" else "[bold red]NOT ENFORCING[/]"
        render.out.print(f"port {found['port']}  {found['mode']}  {live}: {escape(found['why'])}")
        render.out.print(
            f"server {escape(found['server'])}   policy {found['policy_version']}   scanner workers {found['workers']}   connections {found['connections']}"
        )
        counters = found["counters"]
        render.out.print("   ".join(f"{name} {value}" for name, value in counters.items()))
        render.out.print("in escrow: " + (", ".join(f"{count} {name}" for name, count in sorted(found["items"].items())) or "nothing"))
        if found["locked"]:
            render.out.print(
                f"[bold red]LOCKED[/] by {escape(render.safe(found['locked']['by']))}: {escape(render.safe(found['locked']['why'])) or 'no reason given'}"
            )
        for line in _witness_lines(found):
            render.out.print(line, soft_wrap=True)
        if found["sandbox"] is not None:
            twins.servers(found["sandbox"])
        render.out.print("window: " + escape(_window_line(found["window"])))
        if found["weak_principals"]:
            render.out.print("[dim]callers without a credential are told apart by uid or address only; principal.require in the policy can turn them away[/]")
    raise typer.Exit(0 if _sound(found) else 1)


def _sound(found: dict[str, Any]) -> bool:
    witness = found["witness"]
    if found["mode"] == "observe":
        return "attached" in witness["taps"].values()
    return bool(found["enforcing"]) and not (witness is not None and witness["bypassed"])


def _witness_lines(found: dict[str, Any]) -> list[str]:
    """What the taps see and do not see, and what they found. Texts of the watched processes are escaped where they come in, and here again."""
    witness = found["witness"]
    if witness is None:
        return ["witness: none" + ("" if found["mode"] == "proxy" else " (--no-taps)")]
    counters, lines = witness["counters"], []
    for name, what in (("tap", "port"), ("tls", "TLS")):
        state = witness["taps"][name]
        records = witness["records"].get(name)
        lost = sum(each[0] for each in records["lost"].values()) if records else 0
        lines.append(f"witness: {what} {_escaped(state)}" + (f", {records['captured']} records, {lost} lost" if records else ""))
    lines += [f"not covered: {_escaped(each)}" for each in witness["not_covered"]]
    if found["observed"] is not None:
        lines.append(f"observed: {found['observed']['judged']} messages judged, {found['observed']['not_judged']} not judged")
        return lines
    lines.append(f"witnessed {counters.get('witnessed', 0)}   unsure {counters.get('unsure', 0)}   doors {_escaped(witness['doors'])}")
    if witness["bypassed"]:
        lines.append(f"[bold red]BYPASSED[/]: {counters.get('bypasses', 0)} sights, {counters['doors_used']} uses of open doors (holdfast verdicts)")
    for door in witness["open_doors"]:
        lines.append(f"[yellow]open door[/] {door['family']} {_escaped(door['address'] or 'without a name')} of process {door['pid']} {_escaped(door['name'])}")
    if witness["doors_left_out"]:
        lines.append(f"[yellow]open doors[/]: {witness['doors_left_out']} more")
    return lines


def _escaped(text: str) -> str:
    return escape(render.safe(text))


def _window_line(window: dict[str, Any]) -> str:
    if window["url"] is None:
        return f"none: {window['why']}"
    refused = f", {window['refused']} requests without a good token" if window["refused"] else ""
    notes = "".join(f"; {note}" for note in (window["why"], window["tokens_problem"]) if note)
    return f"{window['url']} {'answers' if window['live'] else 'DOES NOT ANSWER'}{refused}{notes}"
