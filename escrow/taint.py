"""What a session's tools have named and its client has not: an address that comes from a result and goes out in an argument.

Pure, bounded, and without any text: identifiers are digests (`escrow.identifiers`). One `Taint` for each session. What the client used in
its own earlier arguments is its own, wherever else it stands. What the person asked for is not on the wire, so that a recipient read from a
letter looks the same whether or not the person meant it: such a call is held for somebody to look at, unless the policy says "note".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal, NamedTuple

from escrow.identifiers import HOST, KINDS, MOST, MOST_WORDS, TOKEN, URL, WORD_BYTES, Mention, credential, host_of, hosts, is_root, mentions, words, words_in
from escrow.leaves import Json, Leaf, leaves
from escrow.naming import name_of, names_credential
from escrow.unpack import Bounds, Form, unpack
from escrow.verdict import Finding, Reason, Verdict

JUDGE: Final = "taint"
REMEMBERED: Final = 8192
"""Identifiers of results that a session remembers, addresses of the web apart from the rest; and as many of its own."""

CREDENTIAL_CHARS: Final = 200
"""Longest value that its place can make a credential of."""

MAX_REASONS: Final = 16
MAX_POINTER_CHARS: Final = 1024
UNSURE_SCORE: Final = 0.6
NOTED_SCORE: Final = 0.2

TEXTS: Final = {
    "taint.email": "It has an e-mail address that this session knows only from a tool's result",
    "taint.account": "It has an account that this session knows only from a tool's result",
    "taint.phone": "It has a telephone number that this session knows only from a tool's result",
    "taint.token": "It has a credential that this session knows only from a tool's result",
    "taint.url": "It has an address of the web, used as it is, that this session knows only from a tool's result",
    "taint.host": "It has an address of the web on a host that this session knows only from a tool's result, with another path or query",
    "taint.forgotten": "It has an address or a credential, and this session's results named more of them than are remembered.",
}
NOTED: Final = frozenset({"taint.url"})
"""Grounds that hold nothing: following a link is what links are for, and nothing is added to it."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """An identifier in a document. span: in the form that `via` leads to."""

    identifier: bytes
    pointer: str = ""
    span: tuple[int, int] | None = None
    via: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sightings:
    """All identifiers of a document, each once. cut: there were more than `identifiers.MOST`.

    words: of a client's message, by pointer, what could be a credential (`identifiers.words`); compared with those that results named.
    """

    found: tuple[Sighting, ...] = ()
    cut: bool = False
    words: tuple[tuple[str, bytes], ...] = ()


NOTHING: Final = Sightings()


class _Source(NamedTuple):
    call: int
    tool: str


@dataclass(frozen=True, slots=True)
class Named:
    """What one text names, wherever it stands: each mention and the steps it stands behind. words: see `Sightings`."""

    mentions: tuple[tuple[tuple[str, ...], Mention], ...]
    words: bytes = b""


def named(forms: Iterable[Form], asked: bool) -> Named:
    """What a text names, from all its forms. asked: it is a client's."""
    found: list[tuple[tuple[str, ...], Mention]] = []
    spoken: list[bytes] = []
    for form in forms:
        if len(found) <= MOST:
            found.extend((form.via, mention) for mention in mentions(form.text))
        if asked:
            spoken.append(words(form.text))
        else:
            found.extend((form.via, mention) for mention in islice(hosts(form.text), max(0, MOST + 1 - len(found))))
    return Named(tuple(found[: MOST + 1]), b"".join(spoken))


def sightings(document: Json, asked: bool, bounds: Bounds = Bounds()) -> Sightings:
    """The identifiers of a document. asked: it is what a client sends."""
    return gather(((leaf, named(unpack(leaf.text, bounds).forms, asked)) for leaf in leaves(document)), asked)


def is_credential(pointer: str, text: str) -> bool:
    """Whether a value's place names it as a credential. A key's pointer ends in `#` and is no place of a value."""
    return 8 <= len(text) <= CREDENTIAL_CHARS and not pointer.endswith("#") and names_credential(name_of(pointer))


def gather(rows: Iterable[tuple[Leaf, Named]], asked: bool) -> Sightings:
    """Put together what the leaves of a document name, and what the leaves' own places say of them."""
    found: dict[bytes, Sighting] = {}
    spoken: list[tuple[str, bytes]] = []
    cut, room = False, MOST_WORDS * WORD_BYTES
    for leaf, of in rows:
        for via, mention in of.mentions:
            if mention.identifier not in found:
                if len(found) >= MOST:
                    cut = True
                    break
                found[mention.identifier] = Sighting(mention.identifier, leaf.pointer, mention.span, via)
        if len(found) < MOST and is_credential(leaf.pointer, leaf.text):
            found.setdefault(credential(leaf.text), Sighting(credential(leaf.text), leaf.pointer))
        if of.words:
            spoken.append((leaf.pointer, of.words[:room]))
            cut |= len(of.words) > room
            room = max(0, room - len(of.words))
    return Sightings(tuple(found.values()), cut, tuple(spoken) if asked else ())


_UNTAINTED: Final = Verdict(JUDGE, Finding.CLEAN, 0.0)


class Taint:
    """One session's memory. Belongs to one thread."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._results: tuple[_Memory, _Memory] = (_Memory(remembered), _Memory(remembered))
        self._own: _Memory = _Memory(2 * remembered)
        self._calls = 0
        self._named = False
        self._blank = True
        """Whether no result has named anybody yet, so that no request can be tainted."""

    def seen_in_result(self, tool: str, seen: Sightings) -> None:
        """A result, or anything else the server said, has gone to the client. tool: its name, never shown; "" where it was no tool."""
        self._blank &= not seen.found and not seen.cut
        source = _Source(self._calls, tool)
        for sighting in seen.found:
            web = sighting.identifier[:1] in (URL, HOST)
            self._named |= sighting.identifier[:1] == TOKEN
            self._results[web].add(sighting.identifier, source)
            if sighting.identifier[:1] == URL:
                self._results[True].add(host_of(sighting.identifier), source)
        if seen.cut:
            self._results[False].lost = self._results[True].lost = True

    def seen_in_arguments(self, seen: Sightings) -> None:
        """A request of the client has gone to the server: what it names is the client's own from now on.

        Not so an address that it has from a result and used as it is: who follows a link knows the host no better than before, and a letter
        can ask for that first.
        """
        self._calls += 1
        if not seen.found and not self._named:
            return
        noted = (
            set()
            if self._blank
            else {sighting.identifier for sighting in seen.found if (reason := self._reason(sighting, "")) is not None and reason.rule in NOTED}
        )
        source = _Source(self._calls, "")
        if self._named:
            for _, identifier in self._spoken(seen):
                self._own.add(identifier, source)
        for sighting in seen.found:
            if sighting.identifier in noted:
                continue
            self._own.add(sighting.identifier, source)
            if sighting.identifier[:1] == URL:
                self._own.add(host_of(sighting.identifier), source)

    def judge(self, seen: Sightings, tool: str = "", effect: Literal["hold", "note"] = "hold") -> Verdict:
        """What is to be said about a request before it goes on. Remembers nothing: call `seen_in_arguments` once it has gone."""
        if self._blank or (not seen.found and not seen.cut and not self._named):
            return _UNTAINTED
        holding: list[Reason] = []
        noted: list[Reason] = []
        for sighting in seen.found:
            reason = self._reason(sighting, tool)
            if reason is not None:
                (noted if reason.rule in NOTED else holding).append(reason)
        for pointer, identifier in self._spoken(seen):
            reason = self._reason(Sighting(identifier, pointer), tool)
            if reason is not None and reason not in holding:
                holding.append(reason)
        if seen.cut and any(len(memory) or memory.lost for memory in self._results):
            holding.append(Reason("taint.forgotten", TEXTS["taint.forgotten"]))
        reasons = tuple((holding + noted)[:MAX_REASONS])
        if holding and effect == "hold":
            return Verdict(JUDGE, Finding.UNSURE, UNSURE_SCORE, reasons)
        return Verdict(JUDGE, Finding.CLEAN, NOTED_SCORE if reasons else 0.0, reasons)

    def _spoken(self, seen: Sightings) -> Iterator[tuple[str, bytes]]:
        """The words of a client's message that results named as credentials; nothing at all, and at no cost, where none did."""
        if self._named:
            for pointer, digests in seen.words:
                yield from ((pointer, identifier) for identifier in words_in(digests) if identifier in self._results[False])

    def _reason(self, sighting: Sighting, tool: str) -> Reason | None:
        identifier = sighting.identifier
        kind = KINDS[identifier[:1]]
        memory = self._results[identifier[:1] in (URL, HOST)]
        if identifier in self._own:
            return None
        source = memory.get(identifier)
        if identifier[:1] in (URL, HOST) and source is None and not is_root(identifier):
            if host_of(identifier) in self._own:
                return None
            source, kind = memory.get(host_of(identifier)), "host"
        elif identifier[:1] in (URL, HOST):
            source, kind = source or memory.get(host_of(identifier)), "url"
        if source is None:
            if memory.lost and identifier[:1] != TOKEN:
                return self._at(sighting, "taint.forgotten", TEXTS["taint.forgotten"])
            return None
        ago = self._calls - source.call
        where = "of the same tool" if source.tool and source.tool == tool else "of another tool" if source.tool else "that is no tool's"
        when = "the last call's" if ago == 0 else f"{ago} call{'s' if ago > 1 else ''} earlier"
        return self._at(sighting, f"taint.{kind}", f"{TEXTS[f'taint.{kind}']} ({where}, {when}).")

    @staticmethod
    def _at(sighting: Sighting, rule: str, text: str) -> Reason:
        return Reason(rule, text, sighting.pointer if len(sighting.pointer) <= MAX_POINTER_CHARS else "", sighting.span, sighting.via)


class _Memory:
    """The latest so many identifiers and where each was first seen. lost: an identifier was forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[bytes, _Source] = OrderedDict()
        self.lost = False

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, identifier: bytes) -> bool:
        return identifier in self._known

    def get(self, identifier: bytes) -> _Source | None:
        return self._known.get(identifier)

    def add(self, identifier: bytes, source: _Source) -> None:
        if identifier in self._known:
            self._known.move_to_end(identifier)
            return
        self._known[identifier] = source
        if len(self._known) > self._most:
            self._known.popitem(last=False)
            self.lost = True
