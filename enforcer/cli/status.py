"""`holdfast status`: what is guarded, whether that is live, and what is held."""

from __future__ import annotations

from typing import Any

import typer
from rich.markup import escape

from enforcer.cli import render
from enforcer.cli.places import Json, RuntimeDir, StateDir, control_socket
from enforcer.control import client


def status(as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """What is guarded, whether enforcement is live and why not, and what is held. Exit code 1 where it is not enforcing."""
    found = client.ask(control_socket(runtime), "status")
    if as_json:
        render.print_json(found)
    else:
        live = "[green]enforcing[/]" if found["enforcing"] else "[bold red]NOT ENFORCING[/]"
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
        render.out.print("window: " + escape(_window_line(found["window"])))
        if found["weak_principals"]:
            render.out.print("[dim]callers without a credential are told apart by uid or address only; principal.require in the policy can turn them away[/]")
    raise typer.Exit(0 if found["enforcing"] else 1)


def _window_line(window: dict[str, Any]) -> str:
    if window["url"] is None:
        return f"none: {window['why']}"
    refused = f", {window['refused']} requests without a good token" if window["refused"] else ""
    notes = "".join(f"; {note}" for note in (window["why"], window["tokens_problem"]) if note)
    return f"{window['url']} {'answers' if window['live'] else 'DOES NOT ANSWER'}{refused}{notes}"
