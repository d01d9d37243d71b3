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
from rich.table import Table
from rich.text import Text

SCREEN_LINES = 30
"""Lines of one text shown without --full."""

_PIPE_COLUMNS = 160
"""Width where output is no terminal and COLUMNS is not set: sentences stay whole for grep and logs."""


def _width() -> int | None:
    return None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _PIPE_COLUMNS


out = Console(highlight=False, emoji=False, width=_width())
err = Console(stderr=True, highlight=False, emoji=False)
STYLE = {"HOSTILE": "bold red", "UNSURE": "yellow", "CLEAN": "green", "held": "bold yellow", "denied": "red", "approved": "green", "delivered": "green"}


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
            Text(row["state"], style=STYLE.get(row["state"], "")),
            Text(finding, style=STYLE.get(finding, "")),
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


def barred(text: Text, full: bool, console: Console = out) -> Text:
    """What others wrote: no line of theirs can be taken for one of ours."""
    text.rstrip()
    lines = list(text.wrap(console, max(20, console.width - 6)))
    if not full and len(lines) > SCREEN_LINES:
        more = len(lines) - SCREEN_LINES
        lines = [*lines[:SCREEN_LINES], Text(f"… ({more} more lines; --full shows all)", style="dim")]
    return Text("\n").join(Text.assemble(("    │ ", "dim"), line) for line in lines)


def verdict(row: dict[str, Any], console: Console = out) -> None:
    """One verdict of `scan` or `replay`."""
    console.print(f"[{STYLE.get(row['finding'], '')}]{row['finding']}[/]  score {row['score']:.2f}  {row['took_ms']:.1f} ms")
    for reason in row["reasons"]:
        said(f"  [bold]{escape(reason['rule'])}[/]  {escape(reason['text'])}  at ", reason["pointer"] or "/", console)
