"""`holdfast token …`: what supervising agents come with."""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

import typer
from rich.markup import escape

from enforcer.cli import render
from enforcer.cli.places import Json, RuntimeDir, StateDir, control_socket
from enforcer.control import client
from escrow.supervisor.scopes import Scope

token = typer.Typer(
    no_args_is_help=True,
    help="Tokens of supervising agents, for the MCP window.\n\nExample: holdfast token new --name watcher --scope read; holdfast token revoke watcher",
)
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found is None or int(found[1]) == 0:
        raise typer.BadParameter("a number with s, m, h or d is wanted, such as 30d", param_hint="--expires")
    return int(found[1]) * _UNITS_S[found[2]]


@token.command("new")
def new(
    name: Annotated[str, typer.Option("--name", help="What it is called in records.")],
    scope: Annotated[list[Scope], typer.Option("--scope", help="read; policy: also propose changes, lock; approve: also decide. May be given again.")],
    acts_as: Annotated[
        list[str] | None,
        typer.Option("--acts-as", help="A principal as `escrow ls` shows it: the agent's own calls, which it can never decide. May be given again."),
    ] = None,
    expires: Annotated[str, typer.Option("--expires", help="For how long it is good, such as 12h or 30d.")] = "30d",
    may_apply: Annotated[bool, typer.Option("--may-apply", help="What it proposes becomes the policy at once, without a person.")] = False,
    as_json: Json = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """Make a token and print it. It is shown this once: only its digest is kept.

    Example: holdfast token new --name reviewer --scope approve --acts-as local:uid=1000
    """
    found = client.ask(
        control_socket(runtime), "token.new",
        name=name, scopes=[each.value for each in scope], acts_as=acts_as or [], expires_s=_seconds(expires), may_apply=may_apply,
    )  # fmt: skip
    if as_json:
        render.print_json(found)
    else:
        render.out.print(escape(found["token"]), soft_wrap=True)
        render.err.print(f"[dim]{escape(_line(found))}; it is not shown again[/]")


@token.command("ls")
def ls(as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """List the tokens: names, scopes, when they end; never the tokens themselves."""
    rows = client.ask(control_socket(runtime), "token.ls")
    if as_json:
        render.print_json(rows)
        return
    for row in rows:
        render.out.print(escape(_line(row)), soft_wrap=True)


@token.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="The token's name.")], as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """Revoke a token: the next request that bears it is refused."""
    row = client.ask(control_socket(runtime), "token.revoke", name=name)
    render.print_json(row) if as_json else render.out.print(f"{escape(row['name'])} is revoked.")


def _line(row: dict[str, Any]) -> str:
    acts_as = f"  acts as {', '.join(row['acts_as'])}" if row["acts_as"] else ""
    applies = "  applies what it proposes" if row["may_apply"] else ""
    end = "expired" if row["expired"] else f"until {time.strftime('%Y-%m-%d %H:%M', time.localtime(row['expires_at']))}"
    return render.safe(f"{row['name']}  {' '.join(row['scopes'])}{acts_as}{applies}  {end}")
