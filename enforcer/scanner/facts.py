"""What is known of one text regardless of where it stands: the rules it meets and the windows the classifier must read.

Owns the memory of texts seen before. The same leaf comes again and again (keys, units, status words, the copy of the text in
structuredContent), so that all of it is computed once a text.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from enforcer.scanner.rules import Hit, RuleSet
from escrow.taint import Named, named
from escrow.unpack import Bounds, unpack
from escrow.windows import windows

MEMO_TEXT_CHARS: Final = 16 * 1024
"""Longest text remembered."""

MEMO_CHARS: Final = 8 * 1024 * 1024
"""Total length of the texts remembered."""

MEMO_SCORES: Final = 65536
DIGEST_BYTES: Final = 24

HIDDEN_BONUS: Final = 1.0
"""Logits added to a window that only a machine reads (HTML comments and what style hides)."""

_WORD = re.compile(r"[^\W\d_]{2,}")
_LONG = re.compile(r"[^\W\d_]{24}|[^\W\d_A-Za-z]{6}")
HIDDEN_TEXTS: Final = {
    "hidden.tags": "It carries words written in invisible tag characters.",
    "hidden.variation-selectors": "It carries words encoded in variation selectors, which nobody sees.",
    "hidden.zero-width": "It carries words encoded in zero-width characters, which nobody sees.",
    "hidden.zero-width-in-words": "Its words are cut by characters that nobody sees.",
    "hidden.bidi": "It carries words turned round by bidirectional controls, so that a person reads another text.",
}


@dataclass(frozen=True, slots=True)
class Ground:
    """rule: id. hostile: holds by itself. weight: logits it adds to windows it touches, where it does not."""

    rule: str
    text: str
    hostile: bool
    weight: float
    span: tuple[int, int] | None
    via: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """A piece for the classifier. digest: of its text; span: in the form that `via` leads to; bonus: logits known beforehand."""

    digest: bytes
    text: str
    span: tuple[int, int]
    via: tuple[str, ...]
    bonus: float


@dataclass(frozen=True, slots=True)
class TextFacts:
    """grounds and windows of all forms of a text; cut: a bound of unpacking was met; size: code points of all forms; named: for the taint."""

    grounds: tuple[Ground, ...]
    windows: tuple[Window, ...]
    cut: bool
    size: int
    named: Named


def digest(text: str) -> bytes:
    """What a window's score is remembered by."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def speaks(text: str) -> bool:
    """Whether a text can carry an instruction: three different words, a run of letters that could be words, or another script."""
    if _LONG.search(text):
        return True
    words: set[str] = set()
    for match in _WORD.finditer(text):
        words.add(match.group())
        if len(words) == 3:
            return True
    return False


class Facts:
    """The memory. Not to be shared between threads."""

    def __init__(self, rules: RuleSet, definitions: RuleSet, bounds: Bounds) -> None:
        self._rules, self._definitions = rules, definitions
        self._described: OrderedDict[str, tuple[Ground, ...]] = OrderedDict()
        self._described_chars = 0
        self._bounds = bounds
        self._memo: OrderedDict[str, TextFacts] = OrderedDict()
        self._memo_chars = 0
        self._scores: OrderedDict[bytes, float] = OrderedDict()

    def of(self, text: str) -> TextFacts:
        """Everything about a text."""
        known = self._memo.get(text)
        if known is not None:
            return known
        facts = self._compute(text)
        if len(text) <= MEMO_TEXT_CHARS and facts.size <= 8 * MEMO_TEXT_CHARS:
            self._memo[text] = facts
            self._memo_chars += facts.size + 64
            while self._memo_chars > MEMO_CHARS:
                _, old = self._memo.popitem(last=False)
                self._memo_chars -= old.size + 64
        return facts

    def described(self, text: str) -> tuple[Ground, ...]:
        """What the rules for definitions say of a text that a server describes itself or a tool with."""
        grounds = self._described.get(text)
        if grounds is None:
            forms = unpack(text, self._bounds).forms
            grounds = self._described[text] = tuple(_met(hit, form.via) for form in forms for hit in self._definitions.search(form.text))
            self._described_chars += len(text) + 64
            while self._described_chars > MEMO_CHARS:
                old, _ = self._described.popitem(last=False)
                self._described_chars -= len(old) + 64
        return grounds

    def known(self, text: str) -> TextFacts | None:
        """Everything about a text, if it was seen before."""
        return self._memo.get(text)

    def score(self, key: bytes) -> float | None:
        """The logit of a window seen before."""
        return self._scores.get(key)

    def learn(self, key: bytes, logit: float) -> None:
        """Remember a window's logit."""
        self._scores[key] = logit
        if len(self._scores) > MEMO_SCORES:
            self._scores.popitem(last=False)

    def _compute(self, text: str) -> TextFacts:
        opened = unpack(text, self._bounds)
        grounds: list[Ground] = []
        pieces: list[Window] = []
        size = 0
        for form in opened.forms:
            size += len(form.text)
            if form.rule is not None:
                hostile = form.rule != "hidden.zero-width-in-words"
                grounds.append(Ground(form.rule, HIDDEN_TEXTS[form.rule], hostile, 0.0 if hostile else 4.0, None, form.via))
            hits = self._rules.search(form.text)
            grounds.extend(_met(hit, form.via) for hit in hits)
            hidden = HIDDEN_BONUS if "html-hidden" in form.via else 0.0
            for start, end in windows(form.text):
                piece = form.text[start:end]
                if not speaks(piece):
                    continue
                bonus = hidden + sum(hit.rule.weight for hit in hits if hit.span[0] < end and start < hit.span[1])
                pieces.append(Window(digest(piece), piece, (start, end), form.via, bonus))
        return TextFacts(tuple(grounds), tuple(pieces), opened.cut, size, named(opened.forms, asked=False))


def _met(hit: Hit, via: tuple[str, ...]) -> Ground:
    return Ground("rule." + hit.rule.id, hit.rule.text, hit.rule.severity == "hostile", hit.rule.weight, hit.span, via)
