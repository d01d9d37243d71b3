"""What people see. Whatever a server, a tool or a client wrote is escaped here, and nowhere else printed."""

from __future__ import annotations

import json
import os
import sys
import time
import unicodedata
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from escrow.unpack import unpack

SCREEN = 1200
"""Code points of a text shown without --full."""

SCREEN_LINES = 30
PLACES = 3
"""Places of one rule shown without --full."""

_PIPE_COLUMNS = 160
"""Width where output is no terminal and COLUMNS is not set: sentences stay whole for grep and logs."""


def _width() -> int | None:
    return None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _PIPE_COLUMNS


out = Console(highlight=False, emoji=False, width=_width())
err = Console(stderr=True, highlight=False, emoji=False)
_STYLE = {"HOSTILE": "bold red", "UNSURE": "yellow", "CLEAN": "green", "held": "bold yellow", "denied": "red", "approved": "green", "delivered": "green"}


def print_json(value: Any) -> None:
    """One JSON document on standard output; ASCII, so that no control character of anybody's reaches a terminal."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
"""Letters by their category, and nothing on a screen: Hangul fillers, the empty braille pattern."""


def safe(text: str, *, lines: bool = False) -> str:
    """Text with every character that is not plainly printable written as an escape. lines: keep line feeds."""
    return "".join(
        char
        if (char == "\n" and lines) or (char.isprintable() and char not in _BLANK and unicodedata.category(char) not in ("Cf", "Co", "Cn", "Cs", "Mn", "Me"))
        else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\u{{{ord(char):x}}}")


def line(markup: str, console: Console = out) -> None:
    """One line, cut where it does not fit: what others wrote never goes on where a line of ours could begin. `--json` has all of it."""
    console.print(markup, no_wrap=True, overflow="ellipsis")


def said(ours: str, theirs: str, console: Console = out, style: str = "") -> None:
    """Our words (markup), then somebody's: on the same line where they fit, else behind a bar."""
    shown = safe(theirs)
    if cell_len(Text.from_markup(ours).plain + shown) < console.width:
        console.print(Text.from_markup(ours) + Text(shown, style))
    else:
        line(ours, console)
        console.print(barred(Text(shown, style), True, console))


def ago(at: float) -> str:
    seconds = int(time.time() - at)
    sign, seconds = ("in ", -seconds) if seconds < 0 else ("", seconds)
    words = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
    return f"{sign}{words}" + ("" if sign else " ago")


def items(rows: list[dict[str, Any]], console: Console = out) -> None:
    """`escrow ls`. The principal has a column where there is room; `escrow show` always has it."""
    if not rows:
        console.print("Nothing is in escrow.")
        return
    wide = console.width >= 120
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("ID", "STATE", "FINDING", "SINCE"):
        table.add_column(name, no_wrap=True)
    table.add_column("TOOL", no_wrap=True, overflow="ellipsis", max_width=24 if wide else 14)
    table.add_column("WHY", overflow="fold")
    if wide:
        table.add_column("PRINCIPAL", no_wrap=True, overflow="ellipsis")
    for row in rows:
        finding, rules = _worst(row["verdicts"])
        cells = [
            row["id"],
            Text(row["state"], style=_STYLE.get(row["state"], "")),
            Text(finding, style=_STYLE.get(finding, "")),
            ago(row["held_at"]),
            escape(safe(row["tool"])[:40]),
            "\n".join(escape(safe(rule)) for rule in rules),
        ]
        table.add_row(*cells, *([escape(safe(row["principal"])[:28])] if wide else []))
    console.print(table)


def _worst(verdicts: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """The worst finding and the rules of every verdict that says so."""
    for finding in ("HOSTILE", "UNSURE", "CLEAN"):
        said = [verdict for verdict in verdicts if verdict["finding"] == finding]
        if said:
            return finding, list(dict.fromkeys(reason["rule"] for verdict in said for reason in verdict["reasons"]))
    return "UNSURE", []


def item(row: dict[str, Any], *, full: bool, console: Console = out) -> None:
    """`escrow show`: why and where first, then the evidence with the finding marked in it, then what a person can type."""
    line(
        f"[bold]{row['id']}[/]  [{_STYLE.get(row['state'], 'bold')}]{row['state']}[/]  {escape(safe(row['kind']))}  [bold]{escape(safe(row['tool']))}[/]",
        console,
    )
    line(f"  server {escape(safe(row['server']))}   principal {escape(safe(row['principal']))}   session {escape(safe(row['session'] or '-'))}", console)
    console.print(f"  held {ago(row['held_at'])}, expires {ago(row['deadline'])}   {row['size_bytes']} bytes   sha256 {row['result_sha256'][:16]}…")
    if row["decided_by"]:
        said(f"  {row['state']} by {escape(safe(row['decided_by']))}: ", row["reason"] or "", console)
    for each in row["verdicts"]:
        console.print(f"\n  [{_STYLE.get(each['finding'], 'bold')}]{each['finding']}[/]  {each['judge']}  score {each['score']:.2f}  {each['took_ms']:.1f} ms")
        _grounds(each["reasons"], full, console)
    if row.get("sandbox") is not None:
        ran(row["sandbox"], full, console)
    if row.get("payload") is None:
        console.print("\n  The payload is shredded.")
        return
    whose = "What the client asks, and has not run (escaped)" if row.get("holds") == "request" else "What the server sent (escaped; do not follow it)"
    console.print(f"\n  [dim]{whose}:[/]")
    _evidence(json.loads(row["payload"]), [reason for each in row["verdicts"] for reason in each["reasons"]], full, console)
    if row["state"] == "held":
        console.print(f"\n  holdfast escrow approve {row['id']} -m WHY\n  holdfast escrow deny {row['id']} -m WHY")


def ran(run: dict[str, Any], full: bool, console: Console = out) -> None:
    """What the call did in its twin."""
    how = f"{run['outcome']} in {run['took_ms']:.1f} ms, state frozen in {run['frozen_ms']:.1f} ms, {'from the pool' if run['pooled'] else 'not from the pool'}"
    console.print(f"\n  [dim]In its twin[/] ({how}{': ' + escape(safe(run['why'])) if run['why'] else ''}):")
    effects, most = run["effects"], None if full else 10
    lines = [("wrote ", f"{each['path']} ({each['change']})") for each in effects["writes"][:most]]
    lines += [
        ("inside " if each["inside"] else "connect ", f"{each['name'] or each['address']}{'' if each['port'] is None else ':' + str(each['port'])}")
        for each in effects["connects"][:most]
    ]
    lines += [("started ", " ".join([each["path"], *each["arguments"][1:]])) for each in effects["executes"][:most]]
    lines += [("not known whole: ", why) for why in effects["incomplete"][:most]]
    lines += [("differs at ", each["pointer"] or "/") for each in run["differences"][:most]]
    for ours, theirs in lines or [("nothing that is kept: ", f"{run['counts']['reads']} files read")]:
        said(f"    {ours}", theirs, console)


def _grounds(reasons: list[dict[str, Any]], full: bool, console: Console) -> None:
    """Each rule once, with every place where it matched."""
    places: dict[tuple[str, str], list[str]] = {}
    for reason in reasons:
        place = safe(reason["pointer"] or "/") + (f" after {' → '.join(safe(step) for step in reason['via'])}" if reason["via"] else "")
        found = places.setdefault((reason["rule"], reason["text"]), [])
        if place not in found:
            found.append(place)
    for (rule, text), found in places.items():
        console.print(f"    [bold]{escape(safe(rule))}[/]")
        console.print(Padding(escape(safe(text)), (0, 0, 0, 6), expand=False))
        for place in found if full else found[:PLACES]:
            said("      at ", place, console)
        if not full and len(found) > PLACES:
            console.print(f"      [dim]and {len(found) - PLACES} more places; --full shows all[/]")


def _evidence(document: Any, reasons: list[dict[str, Any]], full: bool, console: Console) -> None:
    """The leaves that the reasons name (all of them with `full`), and what stands behind an encoding, each line behind a bar.

    The bar is ours: no line the server wrote can be taken for one of ours.
    """
    for pointer, text in _leaves(document):
        here = [reason for reason in reasons if reason["pointer"] == pointer]
        if not here and reasons and not full:
            continue
        said("  ", pointer, console, "dim")
        console.print(barred(_marked(text, _spans(here, ()), full), full, console))
        forms = unpack(text).forms
        for via in dict.fromkeys(tuple(reason["via"]) for reason in here if reason["via"]):
            behind = [form.text for form in forms if form.via == via]
            for decoded in behind:  # which of several a span belongs to is not recorded: then none is marked
                said("  ", f"{pointer} after {' → '.join(via)}", console, "dim")
                console.print(barred(_marked(decoded, _spans(here, via) if len(behind) == 1 else [], full), full, console))


def _spans(reasons: list[dict[str, Any]], via: tuple[str, ...]) -> list[tuple[int, int]]:
    """Spans to mark: those of rules, which name words; the classifier's cover whole windows, and count only where no rule matched."""
    found = [(reason["rule"], (reason["span"][0], reason["span"][1])) for reason in reasons if reason["span"] and tuple(reason["via"]) == via]
    exact = [span for rule, span in found if not rule.startswith("model.")]
    return exact or [span for _, span in found]


def barred(text: Text, full: bool, console: Console = out) -> Text:
    """What others wrote: no line of theirs can be taken for one of ours."""
    text.rstrip()
    lines = list(text.wrap(console, max(20, console.width - 6)))
    if not full and len(lines) > SCREEN_LINES:
        more = len(lines) - SCREEN_LINES
        lines = [*lines[:SCREEN_LINES], Text(f"… ({more} more lines; --full shows all)", style="dim")]
    return Text("\n").join(Text.assemble(("    │ ", "dim"), line) for line in lines)


def _marked(text: str, spans: list[tuple[int, int]], full: bool) -> Text:
    """A leaf with its findings reversed, cut to a screen around the first one."""
    start, end = 0, len(text)
    if not full and len(text) > SCREEN:
        start = max(0, (spans[0][0] if spans else 0) - SCREEN // 4)
        end = min(len(text), start + SCREEN)
    shown, at = Text(), start
    if start:
        shown.append("… ", style="dim")
    for low, high in sorted(spans):
        low, high = max(low, at), min(high, end)
        if low < high:
            shown.append(safe(text[at:low], lines=True))
            shown.append(safe(text[low:high], lines=True), style="reverse red")
            at = high
    shown.append(safe(text[at:end], lines=True))
    if end < len(text):
        shown.append(f" … ({len(text) - end} more; --full shows all)", style="dim")
    return shown


def _leaves(value: Any, pointer: str = "") -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(pointer, value)]
    if isinstance(value, dict):
        found = []
        for key, child in value.items():
            found += _leaves(child, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
        return found
    if isinstance(value, list):
        return [leaf for index, child in enumerate(value) for leaf in _leaves(child, f"{pointer}/{index}")]
    return []


def verdict(row: dict[str, Any], console: Console = out) -> None:
    """One verdict of `scan` or `replay`."""
    console.print(f"[{_STYLE.get(row['finding'], '')}]{row['finding']}[/]  score {row['score']:.2f}  {row['took_ms']:.1f} ms")
    for reason in row["reasons"]:
        said(f"  [bold]{escape(reason['rule'])}[/]  {escape(reason['text'])}  at ", reason["pointer"] or "/", console)
