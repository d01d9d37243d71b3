"""What stands at a place in two answers: a short piece of each, from just before where they part. Pure, and bounded by `MAX_CHARS`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Final

from escrow import jsonrpc

MAX_CHARS: Final = 200
_BEFORE: Final = 40
"""Characters shown of what is still the same."""


class _Absent:
    """Nothing stands there."""


def beside(twin: bytes | None, real: bytes | None, pointers: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """For each pointer (`escrow.sandbox.agreement`) what the twin answered and what the server did; None where nothing stands there."""
    if not pointers:
        return []
    answers = [_read(twin), _read(real)]
    return [_pair(*(_at(answer, pointer) for answer in answers)) for pointer in pointers]


def _read(raw: bytes | None) -> Any:
    try:
        return _Absent if raw is None else jsonrpc.parse(raw)
    except jsonrpc.Unreadable:
        return _Absent


def _at(value: Any, pointer: str) -> Any:
    """Through texts that are JSON as well, as answers are compared."""
    for token in pointer.split("/")[1:]:
        token = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, str):
            try:
                value = jsonrpc.parse(value.encode())
            except (jsonrpc.Unreadable, UnicodeEncodeError):
                return _Absent
        if isinstance(value, dict):
            value = value.get(token, _Absent)
        elif isinstance(value, list) and token.isdecimal() and int(token) < len(value):
            value = value[int(token)]
        else:
            return _Absent
    return value


def _pair(twin: Any, real: Any) -> tuple[str | None, str | None]:
    start = 0
    if isinstance(twin, str) and isinstance(real, str):
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(twin, real, strict=False)))
        start = max(0, same - _BEFORE)
    return _piece(twin, start), _piece(real, start)


def _piece(value: Any, start: int) -> str | None:
    """JSON, cut; of a text the quotes stand around what is shown of it."""
    if value is _Absent:
        return None
    if isinstance(value, str):
        cut = json.dumps(value[start : start + MAX_CHARS], ensure_ascii=False)
        return ("…" if start else "") + cut + ("…" if len(value) > start + MAX_CHARS else "")
    text = ""
    for part in json.JSONEncoder(ensure_ascii=False).iterencode(value):  # lazily: the rest may be large
        text += part[: MAX_CHARS + 1]
        if len(text) > MAX_CHARS:
            return text[:MAX_CHARS] + "…"
    return text
