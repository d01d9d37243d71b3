"""Redaction of a held message: every copy of what is named goes, in text, in structured content, in decoded forms.

Pure. A leaf that carries the words only in an encoded form goes whole, since part of an encoding cannot be cut out safely.
"""

from __future__ import annotations

import json
from typing import Any

import re2

from escrow import jsonrpc
from escrow.unpack import copies

MARK = "[redacted by Holdfast]"


class NothingToRedact(ValueError):
    """The pointer names no text of the message, or the pattern matches none of it. `str()` says which."""


def redact(raw: bytes, what: str) -> bytes:
    """The message without what is named.

    Args:
        raw: a JSON-RPC message.
        what: an RFC 6901 pointer ("/result/content/0/text") when it starts with a slash, else an RE2 pattern.

    Raises:
        NothingToRedact: it names nothing, or is no pattern.
    """
    value = jsonrpc.parse(raw)
    if what.startswith("/"):
        named = _at(value, what)
        if not isinstance(named, str) or not named:
            raise NothingToRedact(f"{what} names no text in this message")
        pattern = re2.compile(re2.escape(named))
    else:
        try:
            pattern = re2.compile(what)
        except re2.error:
            raise NothingToRedact("the pattern is no RE2 expression (https://github.com/google/re2/wiki/Syntax)") from None
    changed = [0]
    clean = _walk(value, pattern, changed)
    if not changed[0]:
        raise NothingToRedact("the pattern matches nothing in this message")
    # The envelope is never touched: a pattern such as "2" must not change ids or the version.
    for key in ("jsonrpc", "id", "method"):
        if key in value:
            clean[key] = value[key]
    if isinstance(value.get("error"), dict) and "code" in value["error"]:
        clean["error"]["code"] = value["error"]["code"]
    return json.dumps(clean, separators=(",", ":")).encode()  # ASCII: a lone surrogate has no UTF-8


def _at(value: Any, pointer: str) -> Any:
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isascii() and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise NothingToRedact(f"{pointer} is not in this message")
    return value


def _walk(value: Any, pattern: Any, changed: list[int]) -> Any:
    if isinstance(value, dict):
        return {_text(key, pattern, changed) if key not in _STRUCTURE else key: _walk(item, pattern, changed) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item, pattern, changed) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and pattern.search(json.dumps(value)):
        changed[0] += 1
        return MARK
    return _text(value, pattern, changed) if isinstance(value, str) else value


_STRUCTURE = frozenset(
    {"jsonrpc", "id", "result", "error", "params", "content", "type", "text", "structuredContent", "isError", "contents", "messages", "_meta"}
)


def _text(text: str, pattern: Any, changed: list[int]) -> str:
    safe = text.encode("utf-8", "replace").decode()
    kept: str = pattern.sub(MARK, safe)
    if kept != safe:
        changed[0] += 1
        text = kept
    found = copies(text, lambda form: [match.span() for match in pattern.finditer(form.encode("utf-8", "replace").decode())])
    if any(copy.via for copy in found):
        changed[0] += 1
        return MARK
    return text
