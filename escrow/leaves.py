"""Every place of a JSON value where text can stand: string values and object keys, each with its RFC 6901 pointer.

Pure. The walk is iterative and linear; neither depth nor lone surrogates nor NULs trouble it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

Json = object
"""A value as `json` gives it: dict, list, str, int, float, bool or None."""

JOIN_EDGE_CHARS = 150
"""How much of a long leaf's two ends takes part when neighbouring leaves are read as one text."""

_INDEX = re.compile(r"/\d+(?=/|$)")


class Leaf(NamedTuple):
    """pointer: RFC 6901; for a key, that of its value with `#` appended. text: as parsed, undecoded."""

    pointer: str
    text: str
    is_key: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """Neighbouring leaves read as one text. starts: where each leaf begins in it; pointer: of the first."""

    pointer: str
    text: str
    starts: tuple[int, ...]

    def straddles(self, start: int, end: int) -> bool:
        """Whether the range takes in text of two leaves."""
        at = bisect_right(self.starts, start)
        return at < len(self.starts) and self.starts[at] < end


def escape(token: str) -> str:
    """One reference token of an RFC 6901 pointer."""
    if "~" in token or "/" in token:
        return token.replace("~", "~0").replace("/", "~1")
    return token


def leaves(value: Json) -> list[Leaf]:
    """The leaves of a value in document order. A key that was met before is not repeated; the first place is named."""
    found: list[Leaf] = []
    keys: set[str] = set()
    stack: list[tuple[str, Json]] = [("", value)]
    while stack:
        pointer, item = stack.pop()
        if isinstance(item, str):
            found.append(Leaf(pointer, item))
        elif isinstance(item, dict):
            children: list[tuple[str, Json]] = []
            for key, child in item.items():
                below = f"{pointer}/{escape(key) if '~' in key or '/' in key else key}"
                if key not in keys:
                    keys.add(key)
                    found.append(Leaf(below + "#", key, True))
                if isinstance(child, str | dict | list):
                    children.append((below, child))
            children.reverse()
            stack += children
        elif isinstance(item, list):
            stack += [(f"{pointer}/{index}", item[index]) for index in range(len(item) - 1, -1, -1) if isinstance(item[index], str | dict | list)]
    return found


def joined(found: list[Leaf]) -> list[Joined]:
    """What stands in the same place of neighbouring array elements (`/content/*/text`), as one text a place.

    An instruction cut over several content blocks is whole again in it. Long leaves take part with their ends only.
    """
    groups: dict[str, list[Leaf]] = {}
    for leaf in found:
        if not leaf.is_key and leaf.text:
            place = _INDEX.sub("/*", leaf.pointer)
            if place != leaf.pointer:
                groups.setdefault(place, []).append(leaf)
    return [_join(group) for group in groups.values() if len(group) > 1]


def _join(group: list[Leaf]) -> Joined:
    parts: list[str] = []
    starts: list[int] = []
    at = 0
    for leaf in group:
        ends: tuple[str, ...] = (leaf.text,)
        if len(leaf.text) > 2 * JOIN_EDGE_CHARS:
            ends = (leaf.text[:JOIN_EDGE_CHARS] + "\n\n", leaf.text[-JOIN_EDGE_CHARS:])
        starts.append(at)
        for text in ends:
            parts.append(text)
            at += len(text)
        parts.append(" ")
        at += 1
    return Joined(group[0].pointer, "".join(parts), tuple(starts))
