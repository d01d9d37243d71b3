"""`holdfast lock | unlock`: the kill switch."""

from __future__ import annotations

from typing import Annotated

import typer

from enforcer.cli import render
from enforcer.cli.places import Json, RuntimeDir, StateDir, control_socket
from enforcer.control import client


def lock(
    why: Annotated[str, typer.Option("-m", "--message", help="Why; recorded.")] = "", as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None
) -> None:
    """The kill switch: refuse every call of every agent at once, and release nothing, until `unlock`. Holds over a restart.

    Example: holdfast lock -m 'the vendor says its server was broken into'
    """
    found = client.ask(control_socket(runtime), "lock", why=why)
    render.print_json(found) if as_json else render.out.print("[bold red]Locked[/]: every call is refused. `holdfast unlock -m WHY` ends it.")


def unlock(
    why: Annotated[str, typer.Option("-m", "--message", help="Why; recorded.")], as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None
) -> None:
    """Let calls through the gate again. Exit code 1 where it is not locked."""
    found = client.ask(control_socket(runtime), "unlock", why=why)
    render.print_json(found) if as_json else render.out.print("Unlocked: calls pass the gate again.")
