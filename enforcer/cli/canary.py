"""`holdfast canary …`: tokens that must never leave."""

from __future__ import annotations

import re
import secrets
import time
from typing import Annotated

import typer
from rich.markup import escape

from enforcer.cli import render
from enforcer.cli.places import Json, RuntimeDir, StateDir, control_socket
from enforcer.control import client
from escrow.canary import CHANCE_BYTES, NAME_PATTERN, digest, make

canary = typer.Typer(
    no_args_is_help=True,
    help="Canaries: tokens to put where secrets lie; a call that carries one is held.\n\nExample: holdfast canary new --name payroll >> /srv/payroll/.env",
)


@canary.command("new")
def new(
    name: Annotated[str | None, typer.Option("--name", help="What a verdict calls it: small letters, digits and hyphens. Without it, a name is made.")] = None,
    as_json: Json = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """Make a canary and print its token. It is shown this once: only its digest is kept, and the daemon never sees it.

    Example: holdfast canary new --name payroll
    """
    if name is not None and not re.fullmatch(NAME_PATTERN, name):
        raise typer.BadParameter("small letters, digits and hyphens are wanted, at most 32", param_hint="--name")
    token = make(secrets.token_bytes(CHANCE_BYTES))
    kept = digest(token)
    row = client.ask(control_socket(runtime), "canary.add", name=name or f"canary-{kept[:8]}", digest=kept)
    if as_json:
        render.print_json({**row, "token": token})
    else:
        render.out.print(token, soft_wrap=True)
        render.err.print(f"[dim]watched as {escape(render.safe(row['name']))}; it is not shown again[/]")


@canary.command("ls")
def ls(as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """List the canaries: names and since when; never the tokens."""
    rows = client.ask(control_socket(runtime), "canary.ls")
    if as_json:
        render.print_json(rows)
        return
    for row in rows:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["made_at"]))
        render.out.print(escape(render.safe(f"{row['name']}  since {since}  {row['digest'][:16]}")), soft_wrap=True)


@canary.command("rm")
def rm(name: Annotated[str, typer.Argument(help="The canary's name.")], as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """Watch a canary no longer: from now on its token may leave."""
    row = client.ask(control_socket(runtime), "canary.rm", name=name)
    render.print_json(row) if as_json else render.out.print(f"{escape(render.safe(row['name']))} is watched no longer.")
