"""Small messages seen before, judged once: what was said of the same bytes, but for numbers, is said again.

They are known by their shape where they were read by one (`escrow.shape`), else by their bytes.

Most of what passes repeats: the same call, the same answer. Only what a judge could say at once is kept, and only as long as nothing it rests on changes.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Final

from enforcer.custody import Said
from escrow import jsonrpc
from escrow.shape import MOST_BYTES, Shape

Key = Shape | bytes

MOST: Final = 4096
"""With the longest messages that have a key, 16 MiB."""


class Known:
    """What was said of messages, by their shapes or their bytes without numbers."""

    def __init__(self) -> None:
        self._said: OrderedDict[Key, Said] = OrderedDict()

    def get(self, key: Key | None) -> Said | None:
        return None if key is None else self._said.get(key)

    def put(self, key: Key | None, said: Said) -> Said:
        if key is not None:
            self._said[key] = said
            if len(self._said) > MOST:
                self._said.popitem(last=False)
        return said

    def clear(self) -> None:
        """What the judges go by has changed."""
        self._said.clear()


_BETWEEN_NUMBERS: Final = re.compile(rb'(?:"(?:[^"\\]++|\\.)*+"|[^"\d-]++)++', re.DOTALL)
"""Strings whole, and everything else but digits and signs. Possessive: each byte is looked at once."""
_WITHOUT_ESCAPES: Final = re.compile(rb'[^"\d-]++(?:"[^"]*+"[^"\d-]*+)*+|(?:"[^"]*+"[^"\d-]*+)++')
"""The same cuts where no string holds a backslash, in half the time."""


def key_of(message: jsonrpc.Message) -> Key | None:
    """The message's shape, or its bytes with its numbers cut out and the cuts marked (a float leaves its point); None where its id is text, or it is large.

    NUL cannot stand in JSON, so equal keys are equal bytes but for numbers outside strings: the id, a page, a limit. No judge reads those
    (`escrow.leaves` gives texts only), so the messages are the same to all of them.
    """
    if message.shape is not None:
        return message.shape
    raw = message.raw
    if len(raw) > MOST_BYTES or not (isinstance(message, jsonrpc.Notification) or type(message.id) is int):
        return None
    return b"\0".join((_BETWEEN_NUMBERS if b"\\" in raw else _WITHOUT_ESCAPES).findall(raw))
