"""`holdfast policy explain` and `holdfast policy test`: what a policy would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from enforcer.cli import rehearsal, render
from enforcer.cli.cases import read_cases
from enforcer.cli.places import Json, RuntimeDir, StateDir, control_socket
from enforcer.cli.run import PolicyFile, read_document
from enforcer.control import client
from escrow.policy import PolicyError, load


def safe(text: str, *, lines: bool = False) -> str:
    """Text of anybody's for the screen: no control characters, no markup."""
    return escape(render.safe(text, lines=lines))


def origin_words(row: dict[str, Any]) -> str:
    """Where a value comes from, for people. row: an `Origin`."""
    if row["origin"] == "live":
        return f"live change by {row['by']}, {render.ago(row['at'])}" + (f": {row['why']}" if row["why"] else "")
    return f"file, line {row['line']}" if row["line"] else str(row["origin"])


def explain(
    tool: Annotated[str, typer.Option("--tool", help="The tool's name (with another --method: what that names).")],
    server: Annotated[str, typer.Option("--server", help="What the guarded server is called (default: as the policy, or the daemon, calls it).")] = "",
    method: Annotated[str, typer.Option("--method", help="The MCP method.")] = "tools/call",
    result: Annotated[Path | None, typer.Option("--result", help="A result: a JSON-RPC message, a result's JSON, or a text.")] = None,
    arguments: Annotated[Path | None, typer.Option("--arguments", help="A call's arguments, as a JSON object.")] = None,
    policy_file: PolicyFile = None,
    as_json: Json = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """Say what would happen with a call or a result, and why; under a policy file, the running policy, or else the defaults.

    Example: holdfast policy explain --tool fetch --result page.json.
    """
    if result is not None and arguments is not None:
        raise typer.BadParameter("give --result or --arguments", param_hint="--arguments")
    chosen = _chosen(policy_file, runtime)
    asked = rehearsal.Asked(
        tool, server or chosen.server, method, None if result is None else _read(result), None if arguments is None else _object(_read(arguments), arguments)
    )
    rehearsed = rehearsal.Rehearsal(chosen)
    found = rehearsal.to_json(rehearsed.run(asked), rehearsed)
    if as_json:
        render.print_json(found)
        return
    render.out.print(f"policy {found['policy']['version']}: {safe(found['policy']['source'])}")
    if found["decision"] is not None:
        render.out.print(f"[bold]{found['decision']['ruling']}[/], recorded as {found['decision']['recorded']}")
    for line in found["why"]:
        render.out.print(f"  {safe(line)}")
    for line in found["missing"]:
        render.out.print(f"  [dim]not part of this: {safe(line)}[/]")
    if found["denied"] is None:
        render.out.print("  " + ", ".join(f"{finding}: {safe(what)}" for finding, what in found["outcomes"].items()))
        for key, setting in found["settings"].items():
            render.out.print(f"    {key} = {safe(json.dumps(setting['value']))}  [dim]{safe(setting['from'])}[/]")


def test(
    file: Annotated[Path, typer.Argument(help="Cases: [[case]] tables in TOML, or a list in JSON (.json).")],
    policy_file: PolicyFile = None,
    as_json: Json = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """Run cases against a policy file (without one: the defaults), without a daemon. Exit code 1 where one fails.

    A case has a tool, one of text, result and arguments, and what to expect: release, hold or refuse. Example: holdfast policy test cases.toml.
    """
    cases = read_cases(file)
    rehearsed = rehearsal.Rehearsal(_of_file(policy_file))
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(cases, 1):
        found = rehearsed.run(case.asked(rehearsed.chosen.server))
        wrong = case.failures(found)
        got = None if found.ruling is None else found.ruling.value
        name = case.name or f"case {number}"
        rows.append({"case": name, "tool": case.tool, "expect": case.expect, "got": got, "passed": not wrong, "failures": wrong, "why": list(found.why)})
    failed = [row for row in rows if not row["passed"]]
    if as_json:
        render.print_json({"passed": len(rows) - len(failed), "failed": len(failed), "cases": rows})
    else:
        for row in failed:
            render.out.print(f"[red]FAILED[/] {safe(str(row['case']))} ({safe(str(row['tool']))})")
            for line in [*row["failures"], *row["why"]]:
                render.out.print(f"  {safe(line)}")
        render.out.print(f"{len(rows) - len(failed)} passed, {len(failed)} failed")
    raise typer.Exit(1 if failed else 0)


def _chosen(path: Path | None, runtime: Path | None) -> rehearsal.Chosen:
    """A policy to rehearse: the named file, else what runs, else the defaults; which one is said."""
    if path is not None:
        return _of_file(path)
    socket = control_socket(runtime)
    try:
        shown, status = client.ask(socket, "policy.show", origin=True), client.ask(socket, "status")
    except client.Unreachable:
        return _of_file(None)
    origins = {row["key"]: row for row in shown["origins"]}
    file = status["policy_path"] or "the defaults"

    def where(place: tuple[str | int, ...]) -> str:
        if place[0] == "rule":
            line = shown["rule_lines"][place[1]]
            return f"{file}:{line}" if line else origin_words(origins["rule"])
        row = origins.get(".".join(map(str, place)))
        return "default" if row is None else f"{file}:{row['line']}" if row["origin"] == "file" and row["line"] else origin_words(row)

    return rehearsal.Chosen(load(shown["text"]), f"the one that runs (port {status['port']})", where, status["server"])


def _of_file(path: Path | None) -> rehearsal.Chosen:
    document = read_document(path)

    def where(place: tuple[str | int, ...]) -> str:
        line = document.lines.get(place)
        return f"{path}:{line}" if line else "default"

    name = str(path) if path is not None else "the defaults: no policy file is named, and none runs here"
    return rehearsal.Chosen(document.policy, name, where, document.policy.server.name)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise client.Refused(f"{path}: {error.strerror}") from None


def _object(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PolicyError(f"{path}: the arguments of a call are a JSON object")
    return value
