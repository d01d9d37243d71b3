"""The judge of what a client sends: secrets, canaries and, for the session's taint, everything that names a party.

Owns how what is found adds up: a secret known by its format, or a canary, is HOSTILE; one that only its name gives away, or a value as random
as a key in a place named like one, is UNSURE; so is what was not looked at whole. Randomness alone is nothing: digests, identifiers and
pictures are as random as keys. No model takes part, so that small arguments are judged in the relay's own loop.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from enforcer.scanner import secret_rules
from enforcer.scanner.secret_rules import SecretHit, entropy
from escrow import canary, jsonrpc
from escrow.leaves import Json, Leaf, leaves
from escrow.naming import name_of, names_credential, names_page
from escrow.scanner_settings import ScannerSettings
from escrow.taint import NOTHING, Named, Sightings, gather, named
from escrow.unpack import Bounds, unpack
from escrow.verdict import Finding, Reason, Verdict

JUDGE: Final = "outgoing"
MAX_REASONS: Final = 16
MAX_POINTER_CHARS: Final = 256
HOSTILE_SCORE: Final = 0.99
UNSURE_SCORE: Final = 0.6

NAMED_CHARS: Final = 300
"""Longest value that is read together with the name of its place."""

QUICK_RULES: Final = 24
"""Most rules that one text may ask for in the relay's own loop: one made of keywords asks for all and takes 30 ms."""

JOINED_CHARS: Final = 64 * 1024
"""Most text of neighbouring values that is read as one."""

MEMO_CHARS: Final = 4 * 1024 * 1024
MEMO_TEXT_CHARS: Final = 4 * 1024

ENTROPY_BITS: Final = 3.0
ENTROPY_CHARS: Final = 14

TEXTS: Final = {
    "secret.entropy": "A value in a place named like a secret's is as random as a key.",
    "outgoing.bounds": "It could not be unpacked or read whole within the scanner's bounds.",
}
_SHORTEST: Final = 6
"""Values below this length hold nothing that is looked for: neither an address nor a password worth the name."""

_SHORT: Final = 12
"""Nor do shorter ones hold a secret of a published format."""

_SCHEME = re.compile(r"(?:bearer|basic|token|bot)\s+", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"[<{$%\[]|\.\.\.|\*\*|xxx|example|changeme|redacted|placeholder|your[_-]|://|^/|^\.|dummy|sample|test", re.IGNORECASE)
_SYMBOL = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands. span: in the form that `via` leads to."""

    pointer: str = ""
    span: tuple[int, int] | None = None
    via: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of a client's message. signs: canaries, whosoever's, by digest; `Outgoing.conclude` names those that are ours."""

    verdict: Verdict
    seen: Sightings = NOTHING
    signs: tuple[tuple[str, Place], ...] = ()


@dataclass(frozen=True, slots=True)
class _Facts:
    """What one value holds, wherever it stands under that name. found: (rule, certain, span, via)."""

    found: tuple[tuple[str, bool, tuple[int, int] | None, tuple[str, ...]], ...]
    signs: tuple[tuple[str, tuple[int, int] | None, tuple[str, ...]], ...]
    named: Named
    cut: bool


_NO_FACTS: Final = _Facts((), (), Named(()), False)


class Outgoing:
    """The judge. Not to be shared between threads."""

    def __init__(self, settings: ScannerSettings) -> None:
        """Opens the rules: nothing is opened later."""
        self.settings = settings
        self._rules = secret_rules.load()
        self._bounds = Bounds(settings.max_depth, settings.max_forms, min(settings.max_chars, 8 << 20))
        self._memo: OrderedDict[tuple[str, str], _Facts] = OrderedDict()
        self._memo_chars = 0
        self._most_rules: int | None = None
        self._watched: dict[str, str] = {}

    def watch(self, canaries: Mapping[str, str]) -> None:
        """The canaries that must not leave from now on: name by digest (`escrow.canary.Canary`)."""
        self._watched = dict(canaries)

    def quick(self, document: Json, size_bytes: int) -> Examined | None:
        """What is known at once, of a document within the quick bounds; None asks for a worker."""
        if size_bytes > self.settings.outgoing_quick_bytes:
            return None
        self._most_rules = QUICK_RULES
        try:
            return self.conclude(self.judge(document))
        except secret_rules.TooMany:
            return None
        finally:
            self._most_rules = None

    def judge(self, document: Json) -> Examined:
        """Examine a document: {"method", "params"} of a request or notification, {"result"} or {"error"} of an answer."""
        started = perf_counter()
        found = leaves(document)
        reasons: list[tuple[bool, Reason]] = []
        signs: list[tuple[str, Place]] = []
        rows: list[tuple[Leaf, Named]] = []
        cut = len(found) > self.settings.max_leaves
        chars = 0
        for leaf in found[: self.settings.max_leaves]:
            size = len(leaf.text)
            if size < _SHORTEST:
                continue
            chars += size
            if chars > 2 * self.settings.max_chars:
                cut = True
                break
            facts = self._of("" if leaf.is_key else name_of(leaf.pointer), leaf.text)
            if facts is _NO_FACTS:
                continue
            pointer = leaf.pointer if len(leaf.pointer) <= MAX_POINTER_CHARS else ""
            cut |= facts.cut
            reasons.extend((certain, Reason(rule, _text(rule), pointer, span, via)) for rule, certain, span, via in facts.found)
            signs.extend((digest, Place(pointer, span, via)) for digest, span, via in facts.signs)
            rows.append((leaf, facts.named))
        if len(found) > 1:
            pointer, across = self._across(found)
            reasons.extend((True, Reason(rule, _text(rule), pointer)) for rule, *_ in across.found)
            signs.extend((digest, Place(pointer)) for digest, *_ in across.signs)
        if cut:
            reasons.append((False, Reason("outgoing.bounds", TEXTS["outgoing.bounds"])))
        reasons.sort(key=lambda entry: not entry[0])
        certain = any(entry[0] for entry in reasons)
        finding = Finding.HOSTILE if certain else Finding.UNSURE if reasons else Finding.CLEAN
        score = HOSTILE_SCORE if certain else UNSURE_SCORE if reasons else 0.0
        verdict = Verdict(JUDGE, finding, score, tuple(reason for _, reason in reasons[:MAX_REASONS]), (perf_counter() - started) * 1000)
        return Examined(verdict, gather(rows, True), tuple(signs[:MAX_REASONS]))

    def conclude(self, examined: Examined) -> Examined:
        """Add the canaries that are ours."""
        if not examined.signs or not self._watched:
            return examined
        ours = [(self._watched[digest], place) for digest, place in examined.signs if digest in self._watched]
        if not ours:
            return examined
        reasons = tuple(Reason(f"canary.{name}", f"It carries the canary {name}.", place.pointer, place.span, place.via) for name, place in ours)
        verdict = examined.verdict
        return Examined(Verdict(JUDGE, Finding.HOSTILE, 1.0, (reasons + verdict.reasons)[:MAX_REASONS], verdict.took_ms), examined.seen, examined.signs)

    def _of(self, name: str, text: str) -> _Facts:
        """What a value holds. Only values that hold nothing are remembered, so that no secret stays in memory for it."""
        known = self._memo.get((name, text))
        if known is not None:
            return known
        facts = self._compute(name, text)
        if facts.found or facts.signs or facts.cut or len(text) > MEMO_TEXT_CHARS:
            return facts
        if not facts.named.mentions and not facts.named.words:
            facts = _NO_FACTS
        self._memo[name, text] = facts
        self._memo_chars += len(text) + 64
        while self._memo_chars > MEMO_CHARS:
            (_, old), _ = self._memo.popitem(last=False)
            self._memo_chars -= len(old) + 64
        return facts

    def _compute(self, name: str, text: str) -> _Facts:
        opened = unpack(text, self._bounds)
        found: dict[str, tuple[str, bool, tuple[int, int] | None, tuple[str, ...]]] = {}
        signs: list[tuple[str, tuple[int, int] | None, tuple[str, ...]]] = []
        cut = opened.cut
        for form in opened.forms:
            if len(form.text) < _SHORT:
                continue
            hits, more = self._rules.search(form.text, self._most_rules)
            cut |= more
            for hit in hits:
                found.setdefault(hit.rule.id, (f"secret.{hit.rule.id}", hit.rule.certain, hit.span, form.via))
            if len(form.text) >= canary.BODY_CHARS:
                signs.extend((sign.digest, sign.span, form.via) for sign in canary.find(form.text))
        if name and len(text) <= NAMED_CHARS:
            for hit in self._with_name(name, text):
                found.setdefault(hit.rule.id, (f"secret.{hit.rule.id}", hit.rule.certain, hit.span, ()))
            if not found and random_value(name, text):
                found["entropy"] = ("secret.entropy", False, (0, len(text)), ())
        return _Facts(tuple(found.values()), tuple(signs), named(opened.forms, True), cut)

    def _with_name(self, name: str, text: str) -> list[SecretHit]:
        """What a rule that needs a name finds in `name = "value"`, as the place would be written in a file."""
        if len(text) < _SHORT or len(name) > 64 or names_page(name):
            return []
        before = f'{name} = "'
        hits, _ = self._rules.search(f'{before}{text}"')
        vouched = names_credential(name)
        return [
            SecretHit(hit.rule, (max(0, hit.span[0] - len(before)), min(len(text), hit.span[1] - len(before))))
            for hit in hits
            if hit.span[0] >= len(before) and (vouched or hit.rule.id != "generic-api-key")
        ]

    def _across(self, found: list[Leaf]) -> tuple[str, _Facts]:
        """What neighbouring values hold together and none of them alone; and the pointer of the first of them."""
        parts: list[Leaf] = []
        starts: list[int] = []
        at = 0
        for leaf in found:
            if not leaf.is_key and leaf.text and len(leaf.text) <= JOINED_CHARS // 4:
                if at + len(leaf.text) > JOINED_CHARS:
                    break
                parts.append(leaf)
                starts.append(at)
                at += len(leaf.text)
        if len(parts) < 2 or at < _SHORT:
            return "", _NO_FACTS
        text = "".join(leaf.text for leaf in parts)
        hits, _ = self._rules.search(text, self._most_rules)
        hits = tuple(hit for hit in hits if hit.rule.certain and _straddles(starts, hit.span))
        signs = [sign for sign in (canary.find(text) if at >= canary.BODY_CHARS else ()) if sign.span is None or _straddles(starts, sign.span)]
        if not hits and not signs:
            return "", _NO_FACTS
        spans = [hit.span for hit in hits] + [sign.span for sign in signs if sign.span is not None]
        pointer = parts[bisect_right(starts, min(span[0] for span in spans)) - 1].pointer if spans else ""
        facts = _Facts(tuple((f"secret.{hit.rule.id}", True, None, ()) for hit in hits), tuple((sign.digest, None, ()) for sign in signs), Named(()), False)
        return pointer if len(pointer) <= MAX_POINTER_CHARS else "", facts


def document(message: jsonrpc.Message) -> Json:
    """What is judged of a client's message, and what pointers are relative to."""
    if isinstance(message, jsonrpc.Response):
        return {"error" if message.is_error else "result": message.value}
    return {"method": message.method, "params": message.params}


def random_value(name: str, text: str) -> bool:
    """Whether a value in a place of that name is as random as a key: letters and digits mixed, no words, no placeholder."""
    value = _SCHEME.sub("", text.strip(), count=1)
    alone = name.lower() in ("key", "keys")
    if not (alone or names_credential(name)) or not 8 <= len(value) <= 4096 or any(char.isspace() for char in value) or _PLACEHOLDER.search(value):
        return False
    digits = any(char.isdigit() for char in value)
    upper, lower = any(char.isupper() for char in value), any(char.islower() for char in value)
    if alone:  # a key of a table or a store, more often than not
        return len(value) >= 20 and digits and upper and lower and not _SYMBOL.search(value) and entropy(value) >= 4.0
    if digits + upper + lower + (_SYMBOL.search(value) is not None) >= 3 and len(value) < ENTROPY_CHARS:
        return entropy(value) >= 2.5
    return len(value) >= ENTROPY_CHARS and digits and (upper or lower) and entropy(value) >= ENTROPY_BITS


def texts() -> dict[str, str]:
    """The sentence of every rule id that a verdict of this judge may name, but for canaries."""
    return {f"secret.{rule.id}": _text(f"secret.{rule.id}") for rule in secret_rules.load().rules} | TEXTS


def _text(rule: str) -> str:
    return TEXTS.get(rule) or f"It carries what has the published format of a secret ({rule.partition('.')[2]})."


def _straddles(starts: list[int], span: tuple[int, int]) -> bool:
    at = bisect_right(starts, span[0])
    return at < len(starts) and starts[at] < span[1]
