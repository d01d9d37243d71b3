"""Secrets by their published formats: Gitleaks' default rule set, read as data, matched in linear time.

Owns `gitleaks.toml`: the set of Gitleaks 8.30.1 (MIT, `gitleaks-license.txt`), unchanged, cut out of the released program by
`python -m tests.bench.secret_rules`. Its patterns are Go's, which are RE2's. How they are used here and there is the same: a rule's keywords must
stand in the text, then its pattern must match, then the secret in it must be as random as the rule asks, and on no allowlist
(published example keys are on one). What differs, because arguments are no source files:

* Rules for one kind of file are left out, but for Kubernetes' secrets, whose pattern names them; allowlists of paths too.
* A format may end before any character that cannot belong to it, and begin after any: Gitleaks wants a quote, a space or the end, which
  `?key=…&` in an address is not.
* A rule whose format is a name and then letters (`zendesk … = …`) makes a text UNSURE; one that knows a secret by itself makes it HOSTILE.

One RE2 set holds the keywords; each pattern that is left is run alone. A set of the patterns themselves needs 143 s for 1 MiB of
base64, since their bounded repetitions multiply; this takes 0.2 s.
"""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import re2

FILE: Final = "gitleaks.toml"
VERSION: Final = "8.30.1"
MOST_MATCHES: Final = 2048
"""Matches of one rule looked at in one text, as long as an allowlist takes each: beyond them the text was not looked at whole."""

_NEAR: Final = r"[\w.-]{0,50}?"
"""What stands in the pattern of a rule that needs a name before the secret."""

_VAGUE: Final = frozenset({"curl-auth-header", "curl-auth-user", "sourcegraph-access-token", "vault-service-token", "facebook-access-token"})
"""Rules whose shape ordinary text has too: forty hex digits near a company's name, `s.` and a word, a command with a placeholder."""

_ANYWHERE: Final = frozenset({"kubernetes-secret-yaml"})
"""Rules that Gitleaks keeps to one kind of file and that are used here all the same."""

_END: Final = r"""(?:[\x60'"\s;]|\\[nr]|$)"""
_LOOSE_END: Final = r"(?:[^A-Za-z0-9]|$)"
_LOOSE_START: Final = r"(?:^|[^A-Za-z0-9])"


@dataclass(frozen=True, slots=True)
class Allow:
    """An allowlist. target: what its patterns are searched in. every: all of its conditions must hold, not one."""

    target: str
    patterns: tuple[Any, ...]
    stopwords: Any
    every: bool

    def takes(self, secret: bytes, match: bytes, line: bytes) -> bool:
        """Whether what was found is known to be no secret."""
        text = {"match": match, "line": line}.get(self.target, secret)
        listed = [any(pattern.search(text) for pattern in self.patterns)] if self.patterns else []
        if self.stopwords is not None:
            listed.append(self.stopwords.search(secret.lower()) is not None)
        return bool(listed) and (all(listed) if self.every else any(listed))


@dataclass(frozen=True, slots=True)
class SecretRule:
    """id: Gitleaks'. certain: the format is enough, no name needed. group: of the secret in the pattern; 0: the first that matched."""

    id: str
    certain: bool
    pattern: Any
    group: int
    entropy: float
    allows: tuple[Allow, ...]


@dataclass(frozen=True, slots=True)
class SecretHit:
    """A secret, and where: a half-open range of code points of the text searched."""

    rule: SecretRule
    span: tuple[int, int]


class TooMany(Exception):
    """A text would take longer than its asker has."""


class SecretRules:
    """The compiled rules. Immutable once built."""

    def __init__(self, table: dict[str, Any]) -> None:
        self._everywhere = (_allow(table.get("allowlist", {})),)
        used = [entry for entry in table["rules"] if "regex" in entry and ("path" not in entry or entry["id"] in _ANYWHERE)]
        self.rules = tuple(_rule(entry) for entry in used)
        asked: dict[str, list[int]] = {}
        for index, entry in enumerate(used):
            for keyword in entry["keywords"]:
                asked.setdefault(keyword.lower(), []).append(index)
        self._by_keyword = list(asked.values())
        self._keywords: Any = re2.Set.SearchSet(_options(fold=True))
        for keyword in asked:
            self._keywords.Add(re2.escape(keyword))
        self._keywords.Compile()

    def search(self, text: str, most_rules: int | None = None) -> tuple[tuple[SecretHit, ...], bool]:
        """The first secret of every rule that finds one, and whether there was more to look at than is looked at.

        Raises TooMany where the text has the keywords of more rules than `most_rules`.
        """
        raw = text.encode("utf-8", "replace")
        matched: list[int] | None = self._keywords.Match(raw)
        if not matched:
            return (), False
        hits: list[SecretHit] = []
        cut = False
        asked = {index for keyword in matched for index in self._by_keyword[keyword]}
        if most_rules is not None and len(asked) > most_rules:
            raise TooMany
        for index in sorted(asked):
            rule = self.rules[index]
            for number, match in enumerate(rule.pattern.finditer(raw)):
                if number == MOST_MATCHES:
                    cut = True
                    break
                span = self._secret(rule, raw, match)
                if span is not None:
                    hits.append(SecretHit(rule, _code_points(text, raw, span)))
                    break
        return tuple(hits), cut

    def _secret(self, rule: SecretRule, raw: bytes, match: Any) -> tuple[int, int] | None:
        """Where the secret of a match stands, unless it is too regular or on an allowlist."""
        group = rule.group or next((at for at in range(1, (match.re.groups or 0) + 1) if match.group(at)), 0)
        start, end = match.span(group)
        secret = raw[start:end]
        if not secret or (rule.entropy and entropy(secret) <= rule.entropy):
            return None
        line = raw[raw.rfind(b"\n", 0, start) + 1 : start + 2000].partition(b"\n")[0]
        if any(allow.takes(secret, match.group(), line) for allow in (*self._everywhere, *rule.allows)):
            return None
        return start, end


def entropy(secret: bytes | str) -> float:
    """Shannon's, in bits for each character."""
    size = len(secret)
    return -sum(count / size * math.log2(count / size) for count in Counter(secret).values()) if size else 0.0


@cache
def load() -> SecretRules:
    """The rules of the package. Opens `gitleaks.toml` once."""
    return SecretRules(tomllib.loads(resources.files("enforcer.scanner").joinpath(FILE).read_text("utf-8")))


def _options(fold: bool = False) -> Any:
    options = re2.Options()
    options.case_sensitive = not fold
    options.max_mem = 16 << 20
    options.log_errors = False
    return options


def _rule(entry: dict[str, Any]) -> SecretRule:
    regex = entry["regex"]
    certain = _NEAR not in regex and "path" not in entry and entry["id"] not in _VAGUE
    if certain:
        regex = _loose(regex)
    allows = tuple(_allow(allow) for allow in entry.get("allowlists", ()) if set(allow) & {"regexes", "stopwords"} and not _needs_path(allow))
    return SecretRule(entry["id"], certain, re2.compile(regex.encode(), _options()), int(entry.get("secretGroup", 0)), float(entry.get("entropy", 0.0)), allows)


def _needs_path(allow: dict[str, Any]) -> bool:
    return allow.get("condition", "OR").upper() == "AND" and bool(allow.get("paths") or allow.get("commits"))


def _loose(regex: str) -> str:
    """The same format with looser ends."""
    if regex.endswith(_END):
        regex = regex.removesuffix(_END) + _LOOSE_END
    folded = regex.startswith("(?i)")
    bare = regex[4:] if folded else regex
    if bare.startswith(r"\b("):
        bare = _LOOSE_START + bare[2:]
    return "(?i)" + bare if folded else bare


def _allow(entry: dict[str, Any]) -> Allow:
    words = [word.lower() for word in entry.get("stopwords", ())]
    return Allow(
        entry.get("regexTarget", "secret"),
        tuple(re2.compile(pattern.encode(), _options()) for pattern in entry.get("regexes", ())),
        re2.compile("|".join(re2.escape(word) for word in words).encode(), _options()) if words else None,
        entry.get("condition", "OR").upper() == "AND",
    )


def _code_points(text: str, raw: bytes, span: tuple[int, int]) -> tuple[int, int]:
    if len(raw) == len(text):
        return span
    start = len(raw[: span[0]].decode("utf-8", "ignore"))
    return start, start + len(raw[span[0] : span[1]].decode("utf-8", "ignore"))
