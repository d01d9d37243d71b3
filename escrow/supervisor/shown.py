"""How text that a stranger may have written is shown to a supervising agent: printable ASCII, bounded, and never where advice stands.

Pure. Everything else is written as an escape (`\\u202e`, `\\x1b`), so that nothing is invisible, turns around or moves a cursor.
"""

from __future__ import annotations

NAME = 160
"""Characters shown of a tool's, method's, server's or session's name."""
PLACE = 240
"""Characters shown of a JSON pointer: its parts are keys of the payload."""


def shown(text: str, most: int = NAME) -> str:
    """The text's first `most` characters, escaped; what was cut is counted."""
    head = text[:most]
    escaped = "".join(char if " " <= char <= "~" and char != "\\" else char.encode("unicode_escape").decode("ascii") for char in head)
    return escaped if len(text) <= most else f"{escaped}... ({len(text) - most} more)"


def fenced(text: str, fence: str) -> str:
    """Untrusted text between two lines that it cannot contain. fence: random, of the caller's making.

    Lines stay lines; every other character that is not printable ASCII is escaped.
    """
    lines = text.split("\n")
    body = "\n".join("".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in line) for line in lines)
    return f"<<<untrusted {fence}>>>\n{body}\n<<<end of untrusted {fence}>>>"
