"""`holdfast scan` and `holdfast verdicts`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from enforcer.cli import render
from enforcer.cli.places import Json, RuntimeDir, StateDir, control_socket
from enforcer.cli.run import PolicyFile, read_policy
from enforcer.control import client
from escrow.item import verdict_json
from escrow.verdict import Finding


def scan(
    file: Annotated[str, typer.Argument(help="A file, or - for standard input.")] = "-",
    as_json: Json = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help='One {"text": …} a line in, one verdict a line out, in order.')] = False,
    policy: PolicyFile = None,
    state: StateDir = None,
    runtime: RuntimeDir = None,
) -> None:
    """Judge a text with the scanner alone, same code and thresholds as the gate. Exit code 1 where it is not CLEAN.

    Example: holdfast scan page.html --json; holdfast scan --jsonl texts.jsonl
    """
    from enforcer.scanner.scan import scan_lines, scan_text

    settings = read_policy(policy).scanner
    try:
        stream = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115  closed with the process
    except OSError as error:
        raise client.Refused(f"{file}: {error.strerror}") from None
    if jsonl:
        lines: Iterator[bytes] = iter(stream.readline, b"")
        for verdict in scan_lines(lines, settings):
            sys.stdout.write(json.dumps(verdict_json(verdict)) + "\n")
            sys.stdout.flush()
        return
    verdict = scan_text(stream.read(), settings)
    render.print_json(verdict_json(verdict)) if as_json else render.verdict(verdict_json(verdict))
    raise typer.Exit(0 if verdict.finding is Finding.CLEAN else 1)


def verdicts(
    as_json: Json = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on: show decisions as they come.")] = False,
    runtime: RuntimeDir = None,
    state: StateDir = None,
) -> None:
    """The last thousand decisions, also from before a restart."""
    path = control_socket(runtime)
    rows = client.follow(path, "verdicts", follow=True) if follow else client.ask(path, "verdicts")
    if as_json and not follow:
        render.print_json(list(rows))
        return
    for row in rows:
        if as_json:
            render.print_json(row)
        else:
            finding = ", ".join(v["finding"] for v in row["verdicts"])
            if row["outcome"] == "observed":
                render.out.print(_observed(row, finding), soft_wrap=True)
                continue
            render.out.print(f"{row['outcome']:10} {escape(render.safe(str(row.get('tool', row.get('where', '')))))[:50]}  {finding}  {row.get('item') or ''}")


def _observed(row: dict[str, Any], finding: str) -> str:
    """A message that was only seen: whose, where, what, and what the judges say."""
    who = f"{row['pid'] or ''} {row['process']}".strip() or "-"
    words = (who, row["connection"], row["direction"], row["method"], row["tool"])
    return f"{'observed':10} " + "  ".join(escape(render.safe(str(word)))[:80] for word in words) + f"  {finding}"
