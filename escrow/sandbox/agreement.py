"""A twin's answer against the real one, as values, place by place.

Pure and bounded: in depth by `jsonrpc.MAX_DEPTH`, in places and differences by the constants below; time grows with the answers' size alone. What
passes a bound is a difference, never agreement. The JSON-RPC id is not compared; all else is, `_meta` too, and 1, 1.0 and true are three values.
A string that is a JSON object or array as a whole in both answers is compared inside, once; its places stand below the string's own.

*Volatile* places may differ. The policy names them, or `learn` found them in the answers of two twins. Both are only candidates, because a server
may know that it runs in a twin, and would gladly have a place declared volatile where it can write what it likes. So a place passes as volatile only
while *both* values are of the same narrow shape, looked at again at every comparison:

* a time (RFC 3339, or of HTTP), a UUID, hexadecimal digits (at most 64, as many in both), an identifier of these behind the same short prefix,
* a number, or a duration in the same unit,
* a list of equal elements in another order, none of them with a text of more than `MAX_WORDS` words.

Never what the model reads as prose: a member called `text` (`content[].text` and its like) unless it is JSON as a whole, an error's `message`, the
order of `content`, `contents` and `messages`.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from escrow import jsonrpc
from escrow.leaves import escape, leaves

MAX_DIFFERENCES: Final = 50
"""Differences that are named; where there are more the last is "too many"."""

MAX_VOLATILE: Final = 1000
"""Volatile places of one answer."""

MAX_PLACES: Final = 2_000_000
"""Values compared."""

MAX_POINTER_CHARS: Final = 300
"""Longest pointer shown whole; a longer one is never volatile."""

MAX_WORDS: Final = 3
MAX_ORDERED_CHARS: Final = 4 << 20
"""Most JSON text that is sorted to see whether lists differ in their order alone."""

Kind = Literal["value", "type", "only in the twin", "only in the real answer", "length", "unreadable", "too many"]

_HEX = r"[0-9a-f]{6,64}|[0-9A-F]{6,64}"
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})?)?"
    r"|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
)
_ID = re.compile(rf"(?P<prefix>[A-Za-z]{{1,16}}[_:-])?(?:(?P<uuid>{_UUID})|(?P<hex>{_HEX}))")
_NUMBER = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?P<unit> ?(?:ns|us|µs|ms|s))?")
_INDEX = re.compile(r"/[0-9]+(?=/|\Z)")
_LONGEST: Final = 96
_ORDERED_PROSE: Final = ("/result/content", "/result/messages", "/result/contents")


@dataclass(frozen=True, slots=True)
class Difference:
    """pointer: RFC 6901 from `/result` or `/error` on, cut; "" is the whole answer. A server chose what is in it."""

    pointer: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Agreement:
    """differences: empty where the answers agree. volatile: places that differ and may."""

    differences: tuple[Difference, ...] = ()
    volatile: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return not self.differences and not self.volatile

    @property
    def agrees(self) -> bool:
        return not self.differences


def compare(twin: bytes | None, real: bytes, globs: tuple[str, ...] = (), learned: frozenset[str] = frozenset()) -> Agreement:
    """Two JSON-RPC responses. globs: the policy's `volatile`. learned: from `learn`, as they are or as `general` has them."""
    return _compare(twin, real, lambda pointer: pointer in learned or general(pointer) in learned or any(fnmatch.fnmatchcase(pointer, glob) for glob in globs))


def learn(one: bytes, another: bytes) -> frozenset[str]:
    """Places in which two twins' answers to one call differ, and that have a volatile place's shape. Empty where they also differ elsewhere."""
    found = _compare(one, another, lambda pointer: True)
    return frozenset(found.volatile) if found.agrees else frozenset()


def general(pointer: str) -> str:
    """A place with `-` for each index of a list, and for each member that is named by a number: what one element has, another may have too."""
    return _INDEX.sub("/-", pointer)


def _compare(twin: bytes | None, real: bytes, may_differ: Callable[[str], bool]) -> Agreement:
    try:
        if twin is None:
            raise jsonrpc.Unreadable("there is none")
        read = [jsonrpc.read(raw) for raw in (twin, real)]
    except jsonrpc.Unreadable:
        return Agreement((Difference("", "unreadable"),))
    ours, theirs = read
    if not isinstance(ours, jsonrpc.Response) or not isinstance(theirs, jsonrpc.Response):
        return Agreement((Difference("", "unreadable"),))
    if ours.is_error != theirs.is_error:
        return Agreement((Difference("", "type"),))
    return _Comparison(may_differ).run("error" if ours.is_error else "result", ours.value, theirs.value)


@dataclass(frozen=True, slots=True)
class _Place:
    """A place as a chain upwards: written out only where something differs, as names may be as long as an answer."""

    above: _Place | None
    token: str | int
    in_text: bool = False

    def pointer(self) -> str | None:
        """None where it is too long to be shown whole."""
        tokens, room, at = [], MAX_POINTER_CHARS, self
        while True:
            token = str(at.token)
            room -= len(token) + 1
            if room < 0:
                return None
            tokens.append(escape(token))
            if at.above is None:
                return "/" + "/".join(reversed(tokens))
            at = at.above

    def cut(self) -> str:
        """The nearest place above that can be shown."""
        at: _Place | None = self
        while at is not None:
            if (pointer := at.pointer()) is not None:
                return pointer
            at = at.above
        return ""


class _Comparison:
    """One walk over two values."""

    def __init__(self, may_differ: Callable[[str], bool]) -> None:
        self._may_differ = may_differ
        self._differences: list[Difference] = []
        self._volatile: list[str] = []
        self._stack: list[tuple[_Place, Any, Any]] = []
        self._sortable = MAX_ORDERED_CHARS

    def run(self, name: str, twin: Any, real: Any) -> Agreement:
        self._stack.append((_Place(None, name), twin, real))
        seen = 0
        while self._stack:
            seen += 1
            if seen > MAX_PLACES or len(self._differences) >= MAX_DIFFERENCES or len(self._volatile) > MAX_VOLATILE:
                self._differences.append(Difference("", "too many"))
                break
            self._look(*self._stack.pop())
        return Agreement(tuple(self._differences), tuple(self._volatile[:MAX_VOLATILE]))

    def _look(self, place: _Place, twin: Any, real: Any) -> None:
        if _kind(twin) != _kind(real):
            self._differ(place, "type")
        elif isinstance(twin, dict):
            self._objects(place, twin, real)
        elif isinstance(twin, list):
            self._lists(place, twin, real)
        elif type(twin) is not type(real) or repr(twin) != repr(real):
            self._scalars(place, twin, real)

    def _objects(self, place: _Place, twin: dict[str, Any], real: dict[str, Any]) -> None:
        for key in sorted(real.keys() - twin.keys()):
            if not self._differ(_Place(place, key), "only in the real answer"):
                return
        for key, value in reversed(twin.items()):
            if key in real:
                self._stack.append((_Place(place, key, place.in_text), value, real[key]))
            elif not self._differ(_Place(place, key), "only in the twin"):
                return

    def _lists(self, place: _Place, twin: list[Any], real: list[Any]) -> None:
        if len(twin) != len(real):
            self._differ(place, "length")
            return
        pointer = place.pointer()
        if pointer is not None and pointer not in _ORDERED_PROSE and self._may_differ(pointer) and self._reordered(twin, real):
            self._volatile.append(pointer)
            return
        self._stack += [(_Place(place, index, place.in_text), twin[index], real[index]) for index in range(len(twin) - 1, -1, -1)]

    def _reordered(self, twin: list[Any], real: list[Any]) -> bool:
        if len(twin) < 2 or self._sortable <= 0:
            return False
        texts = [[json.dumps(item, sort_keys=True) for item in items] for items in (twin, real)]
        self._sortable -= sum(map(len, texts[0])) + sum(map(len, texts[1]))
        if texts[0] == texts[1] or self._sortable < 0 or Counter(texts[0]) != Counter(texts[1]):
            return False
        return all(len(leaf.text.split(None, MAX_WORDS)) <= MAX_WORDS for leaf in leaves(twin))

    def _scalars(self, place: _Place, twin: Any, real: Any) -> None:
        if isinstance(twin, str) and not place.in_text and (inner := _both_json(twin, real)) is not None:
            self._stack.append((_Place(place.above, place.token, True), *inner))
            return
        shape, pointer = _shape(twin), place.pointer()
        is_prose = not place.in_text and (place.token == "text" or pointer == "/error/message")
        if shape is not None and shape == _shape(real) and not is_prose and pointer is not None and self._may_differ(pointer):
            self._volatile.append(pointer)
        else:
            self._differ(place, "value")

    def _differ(self, place: _Place, kind: Kind) -> bool:
        """Whether there is room for more."""
        self._differences.append(Difference(place.cut(), kind))
        return len(self._differences) < MAX_DIFFERENCES


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "truth"
        case int() | float():
            return "number"
        case _:
            return type(value).__name__


def _both_json(twin: str, real: str) -> tuple[Any, Any] | None:
    """Two texts that are JSON as a whole, read as strictly as messages are."""
    if not all(text.lstrip(" \t\r\n")[:1] in ("{", "[") for text in (twin, real)):
        return None
    try:
        return jsonrpc.parse(twin.encode()), jsonrpc.parse(real.encode())
    except (jsonrpc.Unreadable, UnicodeEncodeError):
        return None


def _shape(value: Any) -> tuple[str, str | int] | None:
    """Which narrow grammar a scalar is of; None for all that could carry a message."""
    match value:
        case bool():
            return None
        case int() | float():
            return ("number", "") if len(repr(value)) <= 24 else None
        case str() if len(value) <= _LONGEST:
            if _TIME.fullmatch(value):
                return "time", len(value.split(" "))
            if (number := _NUMBER.fullmatch(value)) is not None:
                return "number in a text", number["unit"] or ""
            if (found := _ID.fullmatch(value)) is not None:
                prefix = found["prefix"] or ""
                return ("uuid", prefix) if found["uuid"] else (f"hex behind {prefix}", len(found["hex"]))
    return None
