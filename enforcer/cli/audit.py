"""`holdfast audit …`: the evidence log, read from its files alone. No daemon is asked, and none needs to run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from enforcer import telemetry
from enforcer.cli import render
from enforcer.cli.places import Json, RuntimeDir, StateDir, state_dir
from enforcer.control.client import Refused
from enforcer.evidence import EvidenceError, keys, proof, reading
from enforcer.evidence.files import folder_of
from enforcer.evidence.verify import Report, verify
from enforcer.store import StoreError, read_secret
from escrow.evidence.canonical import decode
from escrow.evidence.commitment import Salts, commit
from escrow.evidence.note import NoteError, Signed, Verifier, find_notes
from escrow.trace import record_of

audit = typer.Typer(no_args_is_help=True, help="The evidence log: what was judged and decided, signed. Works without a daemon.")

Key = Annotated[str | None, typer.Option("--key", help="The log's public key, or a file with it, kept elsewhere (default: this machine's own).")]
_SHOWN = (
    "tool",
    "ruling",
    "recorded",
    "state",
    "outcome",
    "changes",
    "by",
    "why",
    "item",
    "what",
    "count",
    "unit",
    "change",
    "token",
    "canary",
    "before",
    "after",
    "mode",
    "server",
)
_CHARS = 300
"""Of a value that `tail` shows; --json has all of it."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except EvidenceError as error:
        raise Refused(str(error)) from None
    except OSError as error:
        raise Refused(f"the evidence log cannot be read: {error.strerror}") from None


@audit.command("tail")
def tail(
    count: Annotated[int, typer.Option("-n", "--lines", min=1, max=100_000, help="How many of the last entries to show.")] = 20,
    as_json: Json = False,
    state: StateDir = None,
    runtime: RuntimeDir = None,
) -> None:
    """Show the last entries, oldest first, without checking the log. Example: `holdfast audit tail -n 5 --json`."""
    with _translated():
        rows = reading.last(folder_of(state_dir(state)), count)
    if as_json:
        render.print_json(rows)
        return
    for row in rows:
        render.out.print(escape(_line(row)), soft_wrap=True)


def _line(row: dict[str, Any] | None) -> str:
    if row is None:
        return "(an entry that cannot be read; see holdfast audit verify)"
    said = [f"{name}={_value(str(row[name]))}" for name in _SHOWN if name in row]
    verdicts = row.get("verdicts")
    if isinstance(verdicts, list):
        said += [f"{render.safe(str(one.get('judge')))}:{render.safe(str(one.get('finding')))}" for one in verdicts if isinstance(one, dict)]
    return f"{row['seq']:>8}  {render.safe(row['at'])}  {render.safe(row['event']):13}  {'  '.join(said)}"


def _value(text: str) -> str:
    """Quoted where it could be taken for more than one value, and cut: names may be long, and the line goes on where the screen ends."""
    shown = render.safe(text[:_CHARS] + (f"… ({len(text) - _CHARS} more)" if len(text) > _CHARS else ""))
    return json.dumps(shown, ensure_ascii=False) if "  " in shown or "=" in shown or '"' in shown else shown


@audit.command("verify")
def check(
    key: Key = None,
    since: Annotated[Path | None, typer.Option("--since", help="A file with checkpoints kept elsewhere, alone or among a journal's lines.")] = None,
    allow_tail: Annotated[bool, typer.Option("--allow-tail", help="Accept entries past the last checkpoint: a log being written has some.")] = False,
    as_json: Json = False,
    state: StateDir = None,
    runtime: RuntimeDir = None,
) -> None:
    """Check the whole log from its files. Exit code 1 where it is not sound; the first bad entry is named.

    Example: `holdfast audit verify --key holdfast.pub --since checkpoints-of-yesterday.txt`.
    """
    folder = state_dir(state)
    try:
        verifier = keys.parse_key(key) if key is not None else None
    except EvidenceError as error:
        raise typer.BadParameter(str(error), param_hint="--key") from None
    with _translated():
        verifier = verifier or keys.public_key(folder)
        report = verify(folder_of(folder), verifier, _kept(since, verifier), _Progress())
    if as_json:
        render.print_json(_as_json(report, verifier, allow_tail))
    else:
        _say(report, allow_tail, own_key=key is None)
    raise typer.Exit(0 if report.sound(allow_tail) else 1)


def _kept(path: Path | None, verifier: Verifier) -> list[Signed]:
    if path is None:
        return []
    try:
        found = find_notes(path.read_text("utf-8", "replace"), verifier.name)
    except OSError as error:
        raise typer.BadParameter(f"it cannot be read: {error.strerror}", param_hint="--since") from None
    except NoteError as error:
        raise Refused(f"a checkpoint in {path} is damaged: {error}") from None
    if not found:
        raise typer.BadParameter("it has no checkpoint of this log", param_hint="--since")
    return found


class _Progress:
    """Says on the standard error how far it got, once a second, after the first."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 1

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next:
            self._next += 1
            render.err.print(f"{100 * done // max(total, 1)} % of {total / 1e6:.0f} MB checked")


def _as_json(report: Report, verifier: Verifier, allow_tail: bool) -> dict[str, Any]:
    problem = report.problem
    return {
        "sound": report.sound(allow_tail),
        "entries": report.size,
        "root": report.root,
        "signed": report.signed,
        "tail": report.tail,
        "torn": report.torn,
        "checkpoints": report.checkpoints,
        "kept_checkpoints": report.kept,
        "key": str(verifier),
        "problem": None if problem is None else {"text": problem.text, "entry": problem.entry, "file": problem.file},
    }


def _say(report: Report, allow_tail: bool, own_key: bool) -> None:
    problem = report.problem
    if problem is not None:
        where = "".join((f"entry {problem.entry}" if problem.entry is not None else "", f" in {render.safe(problem.file)}" if problem.file else "")).strip()
        render.out.print(f"[bold red]NOT SOUND[/]  {escape(f'{where}: ' if where else '')}{escape(render.safe(problem.text))}")
        return
    if not report.sound(allow_tail):
        torn = " and a torn record" if report.torn else ""
        render.out.print(f"[bold red]NOT SOUND[/]  {report.tail} entries{torn} past the last checkpoint, which covers {report.signed}: an unsigned tail")
        render.out.print("  A running log always has one for some seconds: --allow-tail accepts it. A clean stop and every start sign it.")
        return
    unsigned = f", then {report.tail} not signed yet" if report.tail else ""
    kept = f"; {report.kept} checkpoints kept elsewhere agree" if report.kept else ""
    render.out.print(f"[green]sound[/]  {report.signed} entries under {report.checkpoints} checkpoints{unsigned}{kept}")
    if own_key:
        render.out.print("  Checked with the key on this machine, which whoever can rewrite the log can replace. Keep `holdfast audit key` elsewhere.")


@audit.command("export")
def export(
    as_json: Annotated[bool, typer.Option("--json", help="Write every entry, one canonical JSON object a line.")] = False,
    index: Annotated[int | None, typer.Option("--proof", min=0, help="Write a proof that this entry is in the log (C2SP tlog-proof).")] = None,
    records: Annotated[bool, typer.Option("--records", help="Write what was judged, one record a line: trace, direction, process, finding.")] = False,
    otlp: Annotated[str | None, typer.Option("--otlp", help="Send every entry as an OpenTelemetry log to this address (http://…/v1/logs).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write (default: standard output).")] = None,
    key: Key = None,
    state: StateDir = None,
    runtime: RuntimeDir = None,
) -> None:
    """Write the entries, or a proof that one of them is in the log; docs/evidence.md says how to check it without Holdfast.

    Example: `holdfast audit export --proof 41 -o 41.tlog-proof`.
    """
    if sum((as_json, records, index is not None, otlp is not None)) != 1:
        raise typer.BadParameter("say one of --json, --records, --otlp URL and --proof INDEX")
    folder = state_dir(state)
    if otlp is not None:
        _send(otlp, folder)
        return
    with _translated():
        if index is not None:
            verifier = keys.parse_key(key) if key is not None else keys.public_key(folder)
            found: Iterable[bytes] = [proof.prove(folder_of(folder), index, verifier).encode()]
        elif records:
            found = (line.encode() + b"\n" for _, entry in reading.entries(folder_of(folder)) if (line := _record_line(entry)))
        else:
            found = (entry + b"\n" for _, entry in reading.entries(folder_of(folder)))
        if output is not None:
            with output.open("wb") as file:
                file.writelines(found)
        elif sys.stdout.isatty():  # what an attacker wrote reaches no terminal as it is
            for part in found:
                render.out.print(escape(render.safe(part.decode(), lines=True)), soft_wrap=True, end="")
        else:
            sys.stdout.buffer.writelines(found)
            sys.stdout.flush()


@audit.command("match")
def match(
    index: Annotated[int, typer.Argument(min=0, help="The entry's number.")],
    file: Annotated[Path, typer.Argument(help="A file with the message, byte for byte.")],
    as_json: Json = False,
    state: StateDir = None,
    runtime: RuntimeDir = None,
) -> None:
    """Say whether a file is the message that an entry committed to. Exit code 1 where it is not, or the item was shredded."""
    folder = state_dir(state)
    with _translated():
        entry = reading.one(folder_of(folder), index)
        secret = keys.load_secret(folder)
    if not isinstance(entry.get("message"), str):
        raise Refused(f"entry {index} is not about a message")
    try:
        data = file.read_bytes()
        item = read_secret(folder, str(entry["item"])) if "item" in entry else None
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}") from None
    except StoreError as error:
        raise Refused(str(error)) from None
    if "item" in entry and item is None:
        raise Refused("the item was shredded: nobody can tell any more what the entry committed to")
    same = commit(Salts(secret, index).of(item, entry["event"])[0], data) == entry["message"]
    render.print_json({"entry": index, "match": same}) if as_json else render.out.print("It is that message." if same else "It is not that message.")
    raise typer.Exit(0 if same else 1)


def _record_line(entry: bytes) -> str:
    record = record_of(decode(entry))
    return "" if record is None else record.line()


def _send(url: str, folder: Path) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise typer.BadParameter("it is no http address", param_hint="--otlp")
    with _translated():
        try:
            sent = telemetry.export((entry for _, entry in reading.entries(folder_of(folder))), url)
        except telemetry.ExportFailed as error:
            raise Refused(str(error)) from None
    render.out.print(f"{sent} entries sent")


@audit.command("key")
def key_command(as_json: Json = False, state: StateDir = None, runtime: RuntimeDir = None) -> None:
    """Print the log's public key. Keep it on another machine: `holdfast audit verify --key` takes it."""
    with _translated():
        verifier = keys.public_key(state_dir(state))
    if as_json:
        render.print_json({"key": str(verifier), "origin": verifier.name})
    else:
        print(verifier)
