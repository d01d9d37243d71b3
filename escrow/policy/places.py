"""At which line of a TOML document each key stands.

tomllib tells no places. A document that it has read is cut here into statements (a header, or `key = value`, TOML v1.0.0 "Spec"), and
each of them read alone again.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

MOST_DEEP: Final = 16
"""Tables in tables that have places of their own; a policy has three."""

Path = tuple[str | int, ...]
"""A place in a document: keys, and indices of arrays of tables."""

# What may hide a bracket or a line feed, then brackets and line feeds themselves. Multi-line strings may end in up to five quotes.
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?""""{0,2}'
    r"|'''.*?''''{0,2}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|(?P<open>[\[{])|(?P<close>[\]}])|(?P<end>\n)",
    re.DOTALL,
)


def lines(text: str) -> dict[Path, int]:
    """Line numbers, from 1, of every table and key. text: a document that `tomllib.loads` accepts."""
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for line, statement in _statements(text):
        read = tomllib.loads(statement + "\n")  # as `parse` does: a CR at the very end is then a line's end
        if statement.lstrip().startswith("["):
            named, is_array = _chain(read)
            table = ()
            for key in named:
                table = (*table, key)
                if is_array and len([part for part in table if isinstance(part, str)]) == len(named):
                    counts[table] = counts.get(table, 0) + 1
                    found.setdefault(table, line)
                if table in counts:
                    table = (*table, counts[table] - 1)
            found.setdefault(table, line)
        else:
            _keys(read, table, line, found)
    return found


def line_of(found: dict[Path, int], path: Path) -> int | None:
    """The line of a key, or of the nearest that holds it."""
    for end in range(len(path), 0, -1):
        if (line := found.get(path[:end])) is not None:
            return line
    return None


def _statements(text: str) -> list[tuple[int, str]]:
    text = text.replace("\r\n", "\n") + "\n"
    found, depth, start, line, begun = [], 0, 0, 1, 1
    for token in _TOKEN.finditer(text):
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
        elif token["end"] and depth == 0:
            statement = text[start : token.start()]
            if statement.strip() and not statement.lstrip().startswith("#"):
                found.append((begun, statement))
            start = token.end()
        line += token[0].count("\n")
        if start == token.end():
            begun = line
    return found


def _chain(read: dict[str, Any]) -> tuple[list[str], bool]:
    """A header's keys, and whether it is an array's."""
    named: list[str] = []
    inner: Any = read
    while isinstance(inner, dict) and inner:
        key = next(iter(inner))
        named.append(key)
        inner = inner[key]
    return named, isinstance(inner, list)


def _keys(read: dict[str, Any], above: Path, line: int, found: dict[Path, int]) -> None:
    for key, value in read.items():
        found.setdefault((*above, key), line)
        if isinstance(value, dict) and len(above) < MOST_DEEP:
            _keys(value, (*above, key), line, found)
