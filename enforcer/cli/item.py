"""`escrow show`: one held message. What the judges say beside each other, what its call did in a twin, the evidence, and what a person can type.

Whatever a server, a tool or a client wrote is escaped by `render`, and stands behind a label or a bar of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from enforcer.cli import twins
from enforcer.cli.render import STYLE, ago, barred, line, out, safe, said
from escrow.unpack import unpack

SCREEN = 1200
"""Code points of a text shown without --full."""

PLACES = 3
"""Places of one rule shown without --full."""

BESIDE = 100
"""Columns from which on the judges stand beside each other."""


def show(row: dict[str, Any], *, full: bool, console: Console = out) -> None:
    """Why and where first, then the evidence with the finding marked in it."""
    line(
        f"[bold]{row['id']}[/]  [{STYLE.get(row['state'], 'bold')}]{row['state']}[/]  {escape(safe(row['kind']))}  [bold]{escape(safe(row['tool']))}[/]",
        console,
    )
    line(f"  server {escape(safe(row['server']))}   principal {escape(safe(row['principal']))}   session {escape(safe(row['session'] or '-'))}", console)
    console.print(f"  held {ago(row['held_at'])}, expires {ago(row['deadline'])}   {row['size_bytes']} bytes   sha256 {row['result_sha256'][:16]}…")
    if row["decided_by"]:
        said(f"  {row['state']} by {escape(safe(row['decided_by']))}: ", row["reason"] or "", console)
    if row["reverted_by"]:
        said(f"  the state was put back {ago(row['reverted_at'])} by ", row["reverted_by"], console)
    elif row["no_clone"]:
        said("  it cannot be put back: ", row["no_clone"], console)
    _judges(row["verdicts"], full, console)
    if row.get("sandbox") is not None:
        twins.ran(row["sandbox"], full, console)
    if row.get("payload") is None:
        console.print("\n  The payload is shredded.")
        return
    whose = "What the client asks, and has not run (escaped)" if row.get("holds") == "request" else "What the server sent (escaped; do not follow it)"
    console.print(f"\n  [dim]{whose}:[/]")
    _evidence(json.loads(row["payload"]), [reason for each in row["verdicts"] for reason in each["reasons"] if _in_payload(reason)], full, console)
    if row["state"] == "held":
        console.print(f"\n  holdfast escrow approve {row['id']} -m WHY\n  holdfast escrow deny {row['id']} -m WHY")
        if row["revertible"]:
            console.print("  [dim]Denied, its call can be put back:[/] holdfast escrow revert")
    elif row["state"] == "denied" and row["revertible"]:
        console.print(f"\n  holdfast escrow revert {row['id']} -m WHY")


def _in_payload(reason: dict[str, Any]) -> bool:
    """Whether its place is one of the payload's; that of an effect is a file or an address, which the server could call as it likes."""
    return not reason["rule"].startswith("sandbox.") or reason["rule"] == "sandbox.different"


def _judges(verdicts: list[dict[str, Any]], full: bool, console: Console) -> None:
    """Beside each other where there is room; there places are cut, as they stand whole below, and with --full."""
    if full or len(verdicts) < 2 or console.width < BESIDE:
        for each in verdicts:
            console.print(f"\n  {_head(each)}")
            _grounds(each["reasons"], full, console)
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0), expand=True)
    for _ in verdicts:
        table.add_column(ratio=1)
    table.add_row(*(Group(Text.from_markup(_head(each)), *_cell(each["reasons"])) for each in verdicts))
    console.print()
    console.print(Padding(table, (0, 0, 0, 2)))


def _head(verdict: dict[str, Any]) -> str:
    judge = escape(safe(verdict["judge"]))
    return f"[{STYLE.get(verdict['finding'], 'bold')}]{verdict['finding']}[/]  [bold]{judge}[/]  score {verdict['score']:.2f}  {verdict['took_ms']:.1f} ms"


def _cell(reasons: list[dict[str, Any]]) -> Iterator[RenderableType]:
    for (rule, text), places in _by_rule(reasons).items():
        yield Text(f"  {safe(rule)}", "bold")
        yield Padding(Text(safe(text)), (0, 0, 0, 4))
        for place in places[:PLACES]:
            yield Text(f"    at {place}", no_wrap=True, overflow="ellipsis")
        if len(places) > PLACES:
            yield Text(f"    and {len(places) - PLACES} more places; --full shows all", "dim")


def _by_rule(reasons: list[dict[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """Each rule once, with every place where it matched, escaped."""
    places: dict[tuple[str, str], list[str]] = {}
    for reason in reasons:
        place = safe(reason["pointer"] or "/") + (f" after {' → '.join(safe(step) for step in reason['via'])}" if reason["via"] else "")
        found = places.setdefault((reason["rule"], reason["text"]), [])
        if place not in found:
            found.append(place)
    return places


def _grounds(reasons: list[dict[str, Any]], full: bool, console: Console) -> None:
    for (rule, text), found in _by_rule(reasons).items():
        console.print(f"    [bold]{escape(safe(rule))}[/]")
        console.print(Padding(escape(safe(text)), (0, 0, 0, 6), expand=False))
        for place in found if full else found[:PLACES]:
            said("      at ", place, console)
        if not full and len(found) > PLACES:
            console.print(f"      [dim]and {len(found) - PLACES} more places; --full shows all[/]")


def _evidence(document: Any, reasons: list[dict[str, Any]], full: bool, console: Console) -> None:
    """The leaves that the reasons name (all of them with `full`, and where none is named), and what stands behind an encoding, each line behind a bar.

    The bar is ours: no line the server wrote can be taken for one of ours.
    """
    leaves = _leaves(document)
    named = {reason["pointer"] for reason in reasons} & {pointer for pointer, _ in leaves}
    for pointer, text in leaves:
        here = [reason for reason in reasons if reason["pointer"] == pointer]
        if not here and named and not full:
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
