"""The rules: one RE2 set over every text, whatever its size linear; the patterns are data (`rules.toml`).

Owns loading and matching. RE2 has no backtracking, so no input can make a rule slow (https://github.com/google/re2/wiki/WhyRE2).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

import re2

_DEFINITION: Final = "definition."


@dataclass(frozen=True, slots=True)
class Rule:
    """id: `family.name`. severity: "hostile" holds by itself; "signal" adds `weight` logits to the classifier's score."""

    id: str
    severity: Literal["hostile", "signal"]
    weight: float
    text: str
    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule that matched, and where: half-open range of code points of the text searched."""

    rule: Rule
    span: tuple[int, int]


class RuleSet:
    """The compiled rules. Immutable once built."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        options = re2.Options()
        options.case_sensitive = False
        options.max_mem = 64 << 20
        options.log_errors = False
        self.rules = rules
        self._set: Any = re2.Set.SearchSet(options)
        self._patterns: list[tuple[Rule, Any]] = []
        for rule in rules:
            for pattern in rule.patterns:
                self._set.Add(pattern)
                self._patterns.append((rule, re2.compile(pattern, options)))
        self._set.Compile()

    def search(self, text: str) -> tuple[Hit, ...]:
        """The first match of every rule that matches, in the rules' order."""
        safe = text
        matched: list[int] = self._set.Match(text.encode("utf-8", "replace"))
        if not matched:
            return ()
        if not text.isascii():  # a lone surrogate becomes one "?", so that offsets stay
            safe = text.encode("utf-8", "replace").decode("utf-8")
        found: dict[str, Hit] = {}
        for index in sorted(matched):
            rule, compiled = self._patterns[index]
            if rule.id not in found:
                match = compiled.search(safe)
                span = (match.start(), match.end()) if match else (0, len(text))
                found[rule.id] = Hit(rule, span)
        return tuple(found.values())


@cache
def load() -> RuleSet:
    """The rules that count everywhere. Opens `rules.toml`."""
    return RuleSet(tuple(rule for rule in _rules() if not rule.id.startswith(_DEFINITION)))


@cache
def load_definitions() -> RuleSet:
    """The rules that count only where a server describes itself and its tools: an order there, elsewhere perhaps advice.

    They are a set of their own since all texts would pay for them otherwise: searching both at once takes ten times as long.
    """
    return RuleSet(tuple(rule for rule in _rules() if rule.id.startswith(_DEFINITION)))


@cache
def _rules() -> tuple[Rule, ...]:
    table = tomllib.loads(resources.files("enforcer.scanner").joinpath("rules.toml").read_text("utf-8"))
    return tuple(Rule(entry["id"], entry["severity"], float(entry.get("weight", 0.0)), entry["text"], tuple(entry["patterns"])) for entry in table["rule"])
