"""`holdfast policy …`: what the policy is, what it would do, and how it changes."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from enforcer.cli import explain, render
from enforcer.cli.explain import origin_words, safe
from enforcer.cli.places import Json, RuntimeDir, StateDir, control_socket
from enforcer.cli.run import read_document, read_policy
from enforcer.control import client
from escrow.policy import load
from escrow.policy.patch import deep, every
from escrow.policy.patch import render as as_toml

policy = typer.Typer(no_args_is_help=True, help="The policy.")
policy.command("explain")(explain.explain)
policy.command("test")(explain.test)
Why = Annotated[str, typer.Option("-m", "--why", help="Why; recorded.")]


@policy.command("show")
def show(
    as_json: Json = False,
    origin: Annotated[bool, typer.Option("--origin", help="Also where each value comes from: default, a line of the file, or a live change.")] = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """Show the running policy and its version."""
    found = client.ask(control_socket(runtime), "policy.show", origin=origin)
    if as_json:
        render.print_json(found)
        return
    render.out.print(f"policy {found['version']}")
    if origin:
        _origins(found["origins"])
    else:
        render.out.print("\n" + safe(as_toml(deep(every(load(found["text"])))), lines=True))
        if found["live_changes"]:
            render.out.print(f"changed live: {safe(', '.join(change['key'] for change in found['live_changes']))} (--origin shows by whom)")
    for change in found["set_aside"]:
        render.out.print(
            f"[yellow]set aside[/]: {safe(change['key'])} = {safe(json.dumps(change['value']))} by {safe(change['by'])}, {render.ago(change['at'])}: "
            "the file's own value of that key was edited since"
        )


def _origins(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("KEY", "VALUE", "FROM"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(safe(row["key"]), safe(json.dumps(row["value"])), safe(origin_words(row)))
    render.out.print(table)


@policy.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="A policy file (TOML).")], as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None
) -> None:
    """Check a policy file without using it. Exit code 2 where it cannot be used; line and key are named."""
    found = read_policy(file)
    render.print_json({"version": found.version}) if as_json else render.out.print(f"{safe(str(file))} is sound (version {found.version}).")


@policy.command("set")
def set_(
    file: Annotated[Path, typer.Argument(help="A whole policy (TOML). The instance's own policy file takes all live changes back.")],
    why: Why = "",
    as_json: Json = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """Make a policy the running one, at once and whole; kept over restarts. One that is not sound changes nothing."""
    text = read_document(file).text
    found = client.ask(control_socket(runtime), "policy.set", text=text, why=why)
    render.print_json(found) if as_json else render.out.print(f"policy {found['version']} (was {found['was']})")


@policy.command("save")
def save(
    file: Annotated[Path, typer.Argument(help="Where to; what is there is replaced.")],
    as_json: Json = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """Write the running policy, live changes and all, as a file that loads to the same version. Comments are not kept."""
    found = client.ask(control_socket(runtime), "policy.show")
    text = f"# Holdfast's running policy, version {found['version']}\n{found['text']}"
    if load(text).version != found["version"]:
        raise client.Refused("the daemon is of another version than this command: its policy would not load to the same version here")
    try:
        _write(file, text)
    except OSError as error:
        raise client.Refused(f"{file}: {error.strerror}") from None
    saved = {"version": found["version"], "file": str(file)}
    render.print_json(saved) if as_json else render.out.print(f"policy {found['version']} is in {safe(str(file))}")


@policy.command("proposals")
def proposals(as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """Show the changes that supervising agents propose, each as a diff against the running policy."""
    rows = client.ask(control_socket(runtime), "policy.proposals")
    if as_json:
        render.print_json(rows)
        return
    waiting = [row for row in rows if row["state"] == "waiting"]
    for row in waiting:
        _proposal(row)
    for row in rows:
        if row["state"] != "waiting":
            render.said(f"[dim]{row['id']} of {safe(row['by'])}: {row['state']} by {safe(row['decided_by'])}: [/]", row["reason"] or "", style="dim")
    if not waiting:
        render.out.print("No proposal waits.")


@policy.command("accept")
def accept(
    proposal: Annotated[str, typer.Argument(help="A proposal's id.")],
    why: Annotated[str, typer.Option("-m", "--why", help="Why; recorded.")],
    as_json: Json = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """Carry a proposed change out, at once, and show it."""
    path = control_socket(runtime)
    row = next((row for row in client.ask(path, "policy.proposals") if row["id"] == proposal and row["state"] == "waiting"), None)
    if row is not None and not as_json:
        _proposal(row)
    found = client.ask(path, "policy.accept", id=proposal, why=why, against=row and row["now"])
    render.print_json(found) if as_json else render.out.print(f"policy {found['version']} (was {found['was']})")


@policy.command("reject")
def reject(
    proposal: Annotated[str, typer.Argument(help="A proposal's id.")],
    why: Annotated[str, typer.Option("-m", "--why", help="Why; recorded, and told to whoever proposed it.")],
    as_json: Json = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """Turn a proposed change down."""
    found = client.ask(control_socket(runtime), "policy.reject", id=proposal, why=why)
    render.print_json(found) if as_json else render.out.print(f"{found['id']} is rejected")


def _proposal(row: dict[str, Any]) -> None:
    """What others wrote stands escaped behind a bar: no line of theirs can be taken for one of ours."""
    render.said(f"[bold]{row['id']}[/]  by {safe(row['by'])}, {render.ago(row['at'])}: ", row["why"])
    if row["unfit"] is not None:
        render.out.print(f"  [yellow]it does not go with the policy that runs now[/]: {safe(row['unfit'])}")
    for line in (row["diff"] or "").splitlines():
        style = {"+": "green", "-": "red"}.get(line[:1], "dim")
        render.out.print(render.barred(Text(render.safe(line), style), True))


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        os.chmod(fresh, mode)
        os.replace(fresh, path)
    except OSError:
        Path(fresh).unlink(missing_ok=True)
        raise
