"""Every text that stands in, or behind, one text: nested decoding with bounds.

Pure. Breadth first, so that what is nearest to the surface is seen first; what passes a bound is reported as `cut`, and the
judge says UNSURE: it is never skipped silently. `copies` finds for redaction where in a text an encoded copy of something stands.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from escrow import encoded, invisible, markup
from escrow.leaves import leaves

_TRIGGER = re.compile(
    r"[A-Za-z0-9+/_=-]{16}|%[0-9A-Fa-f]{2}|&[#A-Za-z]|\\[uUx]|<[!/A-Za-z]|^\s{0,64}[{\[\"]"
    r"|(?:[0-9A-Fa-f]{2}[ :,;-]){7}|\d{2,3}[ ,;]{1,2}\d{2,3}[ ,;]{1,2}\d{2,3}|[01]{8} |[A-Za-z][ ._*|-]{1,3}[A-Za-z][ ._*|-]{1,3}[A-Za-z][ ._*|-]"
    r"|[A-Za-z][013457@$]|[013457@$][A-Za-z]"
)

_ADDRESS_WORDS = frozenset({"http", "https", "www", "com", "org", "net", "io", "dev", "html", "php", "json", "index"})
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Bounds:
    """depth: most decoding steps in a row. forms: most texts out of one. chars: most code points out of one, all forms together."""

    depth: int = 5
    forms: int = 4096
    chars: int = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Form:
    """One text behind a leaf. via: the steps to it, () for the leaf itself. rule: why its being hidden is a ground of its own."""

    text: str
    via: tuple[str, ...] = ()
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class Unpacked:
    """forms: the leaf itself first. cut: whether a bound was met, so that something was not looked into."""

    forms: tuple[Form, ...]
    cut: bool


@dataclass(frozen=True, slots=True)
class Copy:
    """Where a sought text stands: a half-open range of the leaf's own text, to be cut whole where `via` is not empty."""

    start: int
    end: int
    via: tuple[str, ...]


def unpack(text: str, bounds: Bounds = Bounds()) -> Unpacked:
    """All forms of one text."""
    first = Form(text)
    if text.isascii() and not _TRIGGER.search(text) and not _turned(text):
        return Unpacked((first,), False)
    forms, seen, queue = [first], {text}, deque([first])
    room, cut = bounds.chars, False
    while queue:
        form = queue.popleft()
        for step in _steps(form.text):
            if step.text in seen or not step.text.strip():
                if step.rule and step.text in seen:  # known words, but hidden here: that is a ground still
                    forms.append(Form(step.text, (*form.via, *step.via), step.rule))
                continue
            if len(form.via) >= bounds.depth or len(forms) >= bounds.forms or len(step.text) > room:
                cut = True
                continue
            room -= len(step.text)
            seen.add(step.text)
            made = Form(step.text, (*form.via, *step.via), step.rule)
            forms.append(made)
            queue.append(made)
    return Unpacked(tuple(forms), cut)


def _turned(text: str) -> bool:
    return len(encoded._ROT13.findall(text)) >= 2 or len(encoded._REVERSED.findall(text)) >= 2


def _steps(text: str) -> Iterator[Form]:
    """The texts one step behind a text."""
    for revealed in invisible.reveal(text):
        yield Form(revealed.text, (revealed.via,), revealed.rule)
    nested = _json(text)
    if nested is not None:
        for leaf in nested:
            yield Form(leaf, ("json",))
        return  # what stands in its strings is looked at string by string
    if markup.looks_marked_up(text):
        read = markup.read(text)
        for via, part in (("html", read.visible), ("html-attributes", read.attributes), ("html-hidden", read.hidden)):
            if part.strip():
                yield Form(part, (via,))
    words = _words(text)
    if words is not None:
        yield Form(words, ("words",))
    for decoded in encoded.decode(text):
        yield Form(decoded.text, (decoded.via,))


def _words(text: str) -> str | None:
    """An identifier or address read as words (`ignore_all-previousRules`), else None."""
    if len(text) > 4096 or any(char.isspace() for char in text):
        return None
    words = _WORD.findall(text)
    spoken = [word for word in words if len(word) > 2 and word.isalpha() and word.lower() not in _ADDRESS_WORDS]
    # The humps of a base64 run are one or two letters long: that is no language.
    if len(spoken) < 3 or 4 * sum(map(len, spoken)) < 3 * sum(len(word) for word in words if word.lower() not in _ADDRESS_WORDS):
        return None
    return " ".join(words)


def _json(text: str) -> list[str] | None:
    """The strings of a text that is itself JSON (an array, an object or a string), else None."""
    head = text[:64].lstrip()[:1]
    if head not in ("{", "[", '"') or not text.rstrip().endswith(("}", "]", '"')):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return [leaf.text for leaf in leaves(value)]


def copies(text: str, find: Callable[[str], list[tuple[int, int]]], depth: int = 3) -> list[Copy]:
    """Where `find` (which gives half-open ranges of its matches) finds something in a text or behind it.

    A match behind an encoding is given as the range of the whole encoded run; behind a rewriting of the whole text (HTML,
    invisible characters, JSON in a string) as the whole text. Overlaps are left to the caller.
    """
    found = [Copy(start, end, ()) for start, end in find(text)]
    if depth == 0:
        return found
    for decoded in encoded.decode(text):
        for copy in copies(decoded.text, find, depth - 1)[:1]:
            if not (found and decoded.end - decoded.start == len(text) and not copy.via):
                found.append(Copy(decoded.start, decoded.end, (decoded.via, *copy.via)))
    whole: list[tuple[str, str]] = [(revealed.via, revealed.text) for revealed in invisible.reveal(text)]
    nested = _json(text)
    whole.extend(("json", leaf) for leaf in nested or ())
    if nested is None and markup.looks_marked_up(text):
        read = markup.read(text)
        whole.extend((("html", read.visible), ("html-attributes", read.attributes), ("html-hidden", read.hidden)))
    if not found:
        for via, part in whole:
            for copy in copies(part, find, depth - 1)[:1]:
                found.append(Copy(0, len(text), (via, *copy.via)))
    return found
