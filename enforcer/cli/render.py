"""What people see. Whatever a server, a tool or a client wrote is escaped here, and nowhere else printed."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

SCREEN = 1200
"""Code points of a payload shown without --full."""

out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)
_STYLE = {"HOSTILE": "bold red", "UNSURE": "yellow", "CLEAN": "green", "held": "bold yellow", "denied": "red", "approved": "green", "delivered": "green"}


def print_json(value: Any) -> None:
    """One JSON document on standard output; ASCII, so that no control character of anybody's reaches a terminal."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def safe(text: str, *, lines: bool = False) -> str:
    """Text with every character that is not plainly printable written as an escape. lines: keep line feeds."""
    return "".join(
        char if (char == "\n" and lines) or (char.isprintable() and unicodedata.category(char) not in ("Cf", "Co", "Cn", "Cs", "Mn", "Me")) else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\u{{{ord(char):x}}}")


def ago(at: float) -> str:
    seconds = int(time.time() - at)
    sign, seconds = ("in ", -seconds) if seconds < 0 else ("", seconds)
    words = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
    return f"{sign}{words}" + ("" if sign else " ago")


def items(rows: list[dict[str, Any]], console: Console = out) -> None:
    """`escrow ls`."""
    if not rows:
        console.print("Nothing is in escrow.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ID", "STATE", "TOOL", "FINDING", "WHY", "SINCE", "PRINCIPAL"):
        table.add_column(name, overflow="fold" if name == "WHY" else "ellipsis", no_wrap=name != "WHY")
    for row in rows:
        finding, rule = _worst(row["verdicts"])
        style = _STYLE.get(row["state"], "")
        table.add_row(
            row["id"],
            Text(row["state"], style=style),
            escape(safe(row["tool"])[:40]),
            Text(finding, style=_STYLE.get(finding, "")),
            escape(rule),
            ago(row["held_at"]),
            escape(safe(row["principal"])[:28]),
        )
    console.print(table)


def _worst(verdicts: list[dict[str, Any]]) -> tuple[str, str]:
    for finding in ("HOSTILE", "UNSURE", "CLEAN"):
        for verdict in verdicts:
            if verdict["finding"] == finding:
                return finding, ", ".join(dict.fromkeys(reason["rule"] for reason in verdict["reasons"]))
    return "UNSURE", ""


def item(row: dict[str, Any], *, full: bool, console: Console = out) -> None:
    """`escrow show`: why and where first, then the evidence with the finding marked in it."""
    console.print(
        f"[bold]{row['id']}[/]  [{_STYLE.get(row['state'], 'bold')}]{row['state']}[/]  {escape(safe(row['kind']))}  [bold]{escape(safe(row['tool']))}[/]"
    )
    console.print(f"  server {escape(safe(row['server']))}   principal {escape(safe(row['principal']))}   session {escape(row['session'] or '-')}")
    console.print(f"  held {ago(row['held_at'])}, expires {ago(row['deadline'])}   {row['size_bytes']} bytes   sha256 {row['result_sha256'][:16]}…")
    if row["decided_by"]:
        console.print(f"  {row['state']} by {escape(safe(row['decided_by']))}: {escape(safe(row['reason'] or ''))}")
    marks: list[tuple[str, tuple[int, int]]] = []
    for verdict in row["verdicts"]:
        console.print(
            f"\n  [{_STYLE.get(verdict['finding'], '')}]{verdict['finding']}[/]  {verdict['judge']}  score {verdict['score']:.2f}  {verdict['took_ms']:.1f} ms"
        )
        for reason in verdict["reasons"]:
            via = f" (after {' → '.join(reason['via'])})" if reason["via"] else ""
            console.print(f"    [bold]{escape(reason['rule'])}[/]  {escape(reason['text'])}\n      at {escape(safe(reason['pointer'] or '/'))}{escape(via)}")
            if reason["span"] and not reason["via"]:
                marks.append((reason["pointer"], (reason["span"][0], reason["span"][1])))
    if row.get("payload") is None:
        console.print("\n  The payload is shredded.")
        return
    console.print("\n  [dim]What the server sent (escaped; do not follow it):[/]")
    for pointer, text in _leaves(json.loads(row["payload"])):
        spans = [span for at, span in marks if at == pointer]
        if not full and marks and not spans:
            continue
        console.print(f"  [dim]{escape(safe(pointer))}[/]")
        console.print(_marked(text, spans, full))
    if row["state"] == "held":
        console.print(f"\n  holdfast escrow approve {row['id']} -m WHY\n  holdfast escrow deny {row['id']} -m WHY")


def _marked(text: str, spans: list[tuple[int, int]], full: bool) -> Text:
    """A leaf with its findings reversed, cut to a screen around the first one."""
    start, end = 0, len(text)
    if not full and len(text) > SCREEN:
        start = max(0, (spans[0][0] if spans else 0) - SCREEN // 4)
        end = min(len(text), start + SCREEN)
    shown, at = Text("    "), start
    if start:
        shown.append("… ", style="dim")
    for low, high in sorted(spans):
        low, high = max(low, at), min(high, end)
        if low < high:
            shown.append(safe(text[at:low]))
            shown.append(safe(text[low:high]), style="reverse red")
            at = high
    shown.append(safe(text[at:end]))
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
        console.print(f"  [bold]{escape(reason['rule'])}[/]  {escape(reason['text'])}  at {escape(safe(reason['pointer'] or '/'))}")
