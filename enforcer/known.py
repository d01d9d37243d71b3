"""Small messages seen before, judged once: what was said of the same bytes, but for the id, is said again.

Most of what passes repeats: the same call, the same answer. Only what a judge could say at once is kept, and only as long as nothing it rests on changes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from enforcer.custody import Said
from escrow import jsonrpc

MOST: Final = 4096
MOST_BYTES: Final = 4096
"""Longest message kept; with `MOST` of them, 16 MiB."""


class Known:
    """What was said of messages, by their bytes without the id."""

    def __init__(self) -> None:
        self._said: OrderedDict[bytes, Said] = OrderedDict()

    def get(self, key: bytes | None) -> Said | None:
        return None if key is None else self._said.get(key)

    def put(self, key: bytes | None, said: Said) -> Said:
        if key is not None:
            self._said[key] = said
            if len(self._said) > MOST:
                self._said.popitem(last=False)
        return said

    def clear(self) -> None:
        """What the judges go by has changed."""
        self._said.clear()


def key_of(message: jsonrpc.Message) -> bytes | None:
    """The message's bytes with its numeric id cut out and the cut marked; None where that cannot be done simply.

    NUL cannot stand in JSON, so equal keys are equal bytes but for that number: where it is the id, the messages are the same to every judge,
    and where the same digits stand in a member called "id" before it, they differ in a number, which no judge reads.
    """
    raw = message.raw
    if len(raw) > MOST_BYTES:
        return None
    if isinstance(message, jsonrpc.Notification):
        return raw
    if type(message.id) is not int:
        return None
    token = b'"id":%d' % message.id
    at = raw.find(token)
    end = at + len(token)
    return raw[:at] + b"\0" + raw[end:] if at >= 0 and raw[end : end + 1] in (b",", b"}") else None
