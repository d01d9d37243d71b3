"""What the jury is shown of a message: every text in it and behind it, whole where that fits, else windows of it.

Pure. What is left out is counted and said in the text shown. `whole` is False then: the scanner names the windows it suspects but not
those it only nearly suspected, so any part not shown may be the gray one, and the jury cannot call the message CLEAN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from escrow import jsonrpc
from escrow.leaves import Leaf, leaves
from escrow.unpack import Bounds, unpack
from escrow.verdict import Reason

CONTEXT_CHARS: Final = 300
"""Shown on each side of what the scanner marked."""

MAX_SECTIONS: Final = 2000
"""Texts looked at; a message with more is not whole."""

LABEL_CHARS: Final = 120
"""Longest label of a text; it is made of the server's own keys, so it counts as evidence too."""

_BOUNDS: Final = Bounds(depth=5, forms=64, chars=512 * 1024)

_ENVELOPE: Final = frozenset({"jsonrpc", "id", "result", "error", "method", "params", "content", "type", "text", "isError", "structuredContent"})
"""Keys that the protocol itself writes: they say nothing, and are not shown."""

_VERSION: Final = ("/jsonrpc", "2.0")


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the scanner pointed: see `Reason`."""

    pointer: str
    span: tuple[int, int]
    via: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """text: the evidence as the jury reads it. whole: nothing was left out."""

    text: str
    whole: bool


@dataclass(frozen=True, slots=True)
class _Section:
    pointer: str
    via: tuple[str, ...]
    text: str

    @property
    def label(self) -> str:
        label = (self.pointer or "/") + "".join(f" ({step})" for step in self.via)
        return label if len(label) <= LABEL_CHARS else label[: LABEL_CHARS // 2] + "…" + label[-LABEL_CHARS // 2 :]


def marks(reasons: tuple[Reason, ...]) -> tuple[Mark, ...]:
    """The places of a verdict's reasons."""
    return tuple(Mark(reason.pointer, reason.span, reason.via) for reason in reasons if reason.span is not None)


def choose(raw: bytes, marked: tuple[Mark, ...], max_chars: int) -> Shown:
    """What to show of a message's bytes (or of any text) in about `max_chars` code points, labels included."""
    sections, whole = _sections(raw)
    cost = sum(len(section.text) + len(section.label) + 4 for section in sections)
    if whole and cost <= max_chars:
        return Shown(_clean("\n".join(f"[{section.label}] {section.text}" for section in sections)), True)
    return Shown(_clean(_excerpts(sections, marked, max_chars)), False)


def _sections(raw: bytes) -> tuple[list[_Section], bool]:
    try:
        found = leaves(jsonrpc.parse(raw))
    except jsonrpc.Unreadable:
        found = [Leaf("", raw.decode("utf-8", "replace"))]
    sections: list[_Section] = []
    seen: set[str] = set()
    whole = True
    for leaf in found:
        if not leaf.text.strip() or leaf.text in seen or (leaf.is_key and leaf.text in _ENVELOPE) or (leaf.pointer, leaf.text) == _VERSION:
            continue
        if len(sections) >= MAX_SECTIONS:
            return sections, False
        seen.add(leaf.text)
        opened = unpack(leaf.text, _BOUNDS)
        whole &= not opened.cut
        for form in opened.forms:
            if form.via == () or form.text not in seen:
                seen.add(form.text)
                sections.append(_Section(leaf.pointer, form.via, form.text))
    return sections, whole


def _excerpts(sections: list[_Section], marked: tuple[Mark, ...], max_chars: int) -> str:
    ranges: dict[int, list[tuple[int, int]]] = {}
    room = max_chars
    places = {(section.pointer, section.via): at for at, section in reversed(list(enumerate(sections)))}
    for mark in marked:
        at = places.get((mark.pointer, mark.via))
        if at is not None and room > 0:
            start = max(0, mark.span[0] - CONTEXT_CHARS)
            end = min(len(sections[at].text), mark.span[1] + CONTEXT_CHARS, start + max(room, 0))
            if end > start:
                ranges.setdefault(at, []).append((start, end))
                room -= end - start + LABEL_CHARS // 2
    head = _fill(sections, range(len(sections)), room // 2, ranges, from_start=True)
    _fill(sections, range(len(sections) - 1, -1, -1), room - room // 2 + head, ranges, from_start=False)
    lines = []
    shown = 0
    for at in sorted(ranges):
        section = sections[at]
        for start, end in _merged(ranges[at]):
            shown += end - start
            lines.append(f"[{section.label}, characters {start} to {end} of {len(section.text)}] {section.text[start:end]}")
    hidden = sum(len(section.text) for section in sections) - shown
    lines.append(f"[not shown: {hidden} further characters]")
    return "\n".join(lines)


def _fill(sections: list[_Section], order: range, room: int, ranges: dict[int, list[tuple[int, int]]], from_start: bool) -> int:
    """Take from one end of the evidence as much as there is room for; what is left of the room."""
    for at in order:
        size = len(sections[at].text)
        room -= len(sections[at].label) + 40
        if room <= 0:
            return 0
        take = min(size, room)
        ranges.setdefault(at, []).append((0, take) if from_start else (size - take, size))
        room -= take
    return room


def _merged(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _clean(text: str) -> str:
    """Without lone surrogates, which no endpoint could be sent."""
    return text.encode("utf-8", "replace").decode("utf-8")
