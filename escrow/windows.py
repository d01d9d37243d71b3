"""How a text is cut into the windows that the classifier reads: about three sentences each, overlapping by one.

Pure. Every code point of the text stands in at least one window, and the total length of the windows is at most
about twice the text's: a window starts at the last segment of the one before it.
"""

from __future__ import annotations

import re

WINDOW_CHARS = 360
"""Longest window, in code points. Three ordinary English sentences, about 80 tokens."""

WINDOW_SEGMENTS = 3
OVERLAP_CHARS = 60
"""What a hard cut inside one long segment repeats, so that no instruction is cut in two unseen."""

# After a sentence's end, at a blank line, before a list item, and between the fields of what looks like a printed
# structure ({'body': 'text', 'to': …}, in quotes of either kind, escaped or not).
_BREAK = re.compile(
    r"[.!?;][\"')\]]{0,3}\s+"
    r"|[。！？；]"
    r"|\n[ \t]{0,40}\n\s{0,200}"
    r"|\n(?=[ \t]{0,40}(?:[-*•#>|+]|\d{1,3}[.)]))"
    r"|\\?[\"']\s{0,8}[:,]\s{0,8}[\[{\s]{0,8}\\?[\"']"
)


def segments(text: str) -> list[tuple[int, int]]:
    """Half-open ranges of the text's sentences, none longer than `WINDOW_CHARS`. Together they cover the text."""
    found: list[tuple[int, int]] = []
    start = 0
    for match in _BREAK.finditer(text):
        _pieces(found, text, start, match.end())
        start = match.end()
    _pieces(found, text, start, len(text))
    return found


def _pieces(found: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    while end - start > WINDOW_CHARS:
        cut = text.rfind(" ", start + WINDOW_CHARS - OVERLAP_CHARS, start + WINDOW_CHARS) + 1 or start + WINDOW_CHARS
        found.append((start, cut))
        start = text.rfind(" ", cut - OVERLAP_CHARS, cut - 1) + 1 or cut - OVERLAP_CHARS
    if end > start:
        found.append((start, end))


def windows(text: str) -> list[tuple[int, int]]:
    """Half-open ranges of the text's windows, in order."""
    if len(text) <= WINDOW_CHARS // 3:
        return [(0, len(text))] if text else []
    parts = segments(text)
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(parts):
        start, end = parts[at]
        upto = at + 1
        while upto < len(parts) and upto - at < WINDOW_SEGMENTS and parts[upto][1] - start <= WINDOW_CHARS:
            end = parts[upto][1]
            upto += 1
        found.append((start, end))
        if upto >= len(parts):
            break
        at = upto - 1 if upto - at > 1 else upto
    return found
