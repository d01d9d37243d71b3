"""`holdfast escrow …` and `holdfast tools …`: what is held, and what people decide about it."""

from __future__ import annotations

import difflib
import json
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from enforcer.cli import item, render, twins
from enforcer.cli.places import Json, RuntimeDir, StateDir, control_socket
from enforcer.control import client

escrow = typer.Typer(
    no_args_is_help=True,
    help="See, approve and deny what is held.\n\nExample: holdfast escrow ls; holdfast escrow approve hf-0123456789 -m 'read it, harmless'",
)
tools = typer.Typer(no_args_is_help=True, help="Tool definitions that changed since they were trusted.")
Id = Annotated[str, typer.Argument(help="The item's id (hf-…), as `escrow ls` shows it.")]
_REVERT_S = 180.0
"""Longer than the keeper takes at most."""
Why = Annotated[str, typer.Option("-m", "--message", help="Why; recorded with the decision.")]


@escrow.command("ls")
def ls(
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on: show items as they come (with --json, one object a line).")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Also those that are over (JSON always has all).")] = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """List what is in escrow, oldest first."""
    path = control_socket(runtime)
    open_ = None if as_json or all_ else ["held", "approved"]
    rows = client.ask(path, "escrow.ls", states=open_) if open_ else client.ask(path, "escrow.ls")
    if not watch:
        render.print_json(rows) if as_json else render.items(rows)
        return
    for row in rows:
        render.print_json(row) if as_json else render.items([row])
    for row in client.follow(path, "escrow.watch"):
        render.print_json(row) if as_json else render.items([row])


@escrow.command("show")
def show(
    id: Id,
    as_json: Json = False,
    full: Annotated[bool, typer.Option("--full", help="The whole payload, not a screenful around the finding.")] = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """Show an item: verdicts, reasons, where, and the evidence with the finding marked."""
    row = client.ask(control_socket(runtime), "escrow.show", id=id)
    render.print_json(row) if as_json else item.show(row, full=full)


@escrow.command("approve")
def approve(
    id: Id,
    why: Why,
    redact: Annotated[str | None, typer.Option("--redact", help="Take every copy of this out first: a JSON pointer (/result/…) or an RE2 pattern.")] = None,
    as_json: Json = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """Release exactly these bytes to the client that waits, or that makes the same call again."""
    _decided(client.ask(control_socket(runtime), "escrow.approve", id=id, why=why, redact=redact), as_json)


@escrow.command("deny")
def deny(id: Id, why: Why, as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """Refuse an item; the client is told so in fixed words."""
    _decided(client.ask(control_socket(runtime), "escrow.deny", id=id, why=why), as_json)


@escrow.command("replay")
def replay(id: Id, as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """Judge a stored result under the present policy; changes nothing."""
    found = client.ask(control_socket(runtime), "escrow.replay", id=id)
    if as_json:
        render.print_json(found)
        return
    render.out.print("then:")
    for verdict in found["then"]:
        render.verdict(verdict)
    render.out.print("now:")
    render.verdict(found["now"])


@escrow.command("revert")
def revert(
    id: Id,
    why: Why,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking; without, it shows what would change, and asks.")] = False,
    as_json: Json = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """Put the server's state back as it was before a denied call that has run. Refused where something else has written since.

    Example: holdfast escrow revert hf-0123456789 -m 'it deleted the archive'
    """
    path = control_socket(runtime)
    if not (yes and as_json):
        plan = client.ask(path, "escrow.revert", id=id, why=why)
        if as_json:
            render.print_json(plan)
            return
        twins.changes(plan)
        if not yes and not typer.confirm("Put it back?"):
            raise typer.Exit(1)
    done = client.ask(path, "escrow.revert", _REVERT_S, id=id, why=why, do=True)
    render.print_json(done) if as_json else render.out.print(f"{id}: the state is as it was before the call.")


@escrow.command("shred")
def shred(id: Id, as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """Destroy an item's payload and key for good."""
    _decided(client.ask(control_socket(runtime), "escrow.shred", id=id), as_json)


def _decided(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        render.print_json(row)
    else:
        render.out.print(f"{row['id']} is {row['state']}.")


@tools.command("ls")
def tools_ls(as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """List the server's tools: trusted, new or changed."""
    rows = client.ask(control_socket(runtime), "tools.ls")
    if as_json:
        render.print_json([{"name": row["name"], "state": row["state"]} for row in rows])
        return
    for row in rows:
        render.line(f"{row['state']:8} {escape(render.safe(row['name']))}")


@tools.command("diff")
def tools_diff(as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """Show what changed since the tools were trusted. Exit code 1 where anything did."""
    rows = [row for row in client.ask(control_socket(runtime), "tools.ls") if row["state"] != "trusted"]
    if as_json:
        render.print_json(rows)
    for row in rows if not as_json else ():
        old, new = (json.dumps(json.loads(row[key] or "null"), indent=2, sort_keys=True).splitlines() for key in ("trusted", "offered"))
        for line in difflib.unified_diff(old, new, "trusted", "offered", lineterm=""):
            render.out.print(render.barred(Text(render.safe(line)), True))
    raise typer.Exit(1 if rows else 0)


@tools.command("trust")
def tools_trust(as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """Trust the definitions last offered. Look at `tools diff` first."""
    found = client.ask(control_socket(runtime), "tools.trust")
    render.print_json(found) if as_json else render.out.print(f"{found['trusted']} tools are trusted.")
