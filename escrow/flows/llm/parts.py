"""Texts out of the content blocks that all of the models' APIs have, under different names.

Pure. Whatever has not the shape that is expected becomes `Unread`: it may be newer than this reader, or an attack on it.
"""

from __future__ import annotations

from typing import Any

from escrow.flows.messages import Completion, Part, Prompt, Unread

MAX_STREAMED = 16 << 20
"""Characters of one streamed answer that are put together."""


def text(value: Any) -> str:
    """A string, or nothing."""
    return value if isinstance(value, str) else ""


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def texts(content: Any) -> tuple[str, list[Unread]]:
    """The text of a content field, a string or blocks, and the blocks that have none."""
    if isinstance(content, str):
        return content, []
    said, unread = [], []
    for block in listed(content):
        words = table(block).get("text", table(block).get("refusal")) if not isinstance(block, str) else block
        if isinstance(words, str):
            said.append(words)
        else:
            unread.append(Unread(text(table(block).get("type"))))
    if content is not None and not isinstance(content, list):
        unread.append(Unread(""))
    return "\n".join(said), unread


def prompt(role: str, content: Any) -> list[Part]:
    """What somebody of this role says."""
    words, unread = texts(content)
    said: list[Part] = []
    if words:
        said.append(Completion(words) if role == "assistant" else Prompt(role, words))
    return [*said, *unread]


class Pieces:
    """Texts that come in pieces, each under a key, in the order in which the keys first came; bounded."""

    def __init__(self) -> None:
        self._pieces: dict[Any, list[str]] = {}
        self._size = 0
        self.full = False

    def add(self, key: Any, piece: str) -> None:
        self._size += len(piece) + 64
        if self._size > MAX_STREAMED:
            self.full = True
        else:
            self._pieces.setdefault(key, []).append(piece)

    def get(self, key: Any) -> str:
        return "".join(self._pieces.get(key, ()))

    def order(self) -> list[Any]:
        """The keys, as they first came."""
        return list(self._pieces)
