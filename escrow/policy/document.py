"""The whole policy, as one frozen value, and what it says of a call."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from escrow.jury_settings import JurySettings
from escrow.policy.rules import Rule, ToolRules
from escrow.policy.tables import Bounds, Escrow, Evidence, Judging, PrincipalRules, Server, ServerName, ServerTable, Table, Tls, ToolNames, Unclean
from escrow.scanner_settings import ScannerSettings

KNOWN_CALLS: Final = 4096
"""Most (server, tool, method) whose rules are remembered."""

KNOWN_CHARS: Final = 512
"""Longest names remembered: a client chooses them."""

_STRICTNESS: Final[dict[Unclean, int]] = {"pass": 0, "hold": 1, "refuse": 2}
_SANDBOXED: Final = ("tool_class", "when", "outside", "session", "reads", "writes", "connects", "executes", "volatile")
_JUDGED: Final = ("judges", "require", "on_hostile", "on_unsure", "trial", "taint", "outgoing", *_SANDBOXED)
_DEADLINES: Final = ("claim_after_s", "hold_for_s")
_SIZES: Final = ("request_bytes", "result_bytes")


class Contradiction(ValueError):
    """Keys that are sound one by one and not together. problems: (where, what) each."""

    def __init__(self, problems: list[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, where))}: {what}" for where, what in problems))
        self.problems = problems


class Policy(Table):
    """The whole document. `passthrough` names what passes without being MCP, as "METHOD /path-glob"."""

    fail: Literal["closed", "open"] = "closed"
    passthrough: tuple[str, ...] = ("GET /.well-known/*", "GET /health*")
    server: Server = Server()
    servers: dict[ServerName, ServerTable] = Field(default_factory=dict, max_length=64)
    escrow: Escrow = Escrow()
    judging: Judging = Judging()
    tools: ToolNames = ToolNames()
    bounds: Bounds = Bounds()
    evidence: Evidence = Evidence()
    jury: JurySettings | None = None
    tls: Tls | None = None
    principal: PrincipalRules = PrincipalRules()
    scanner: ScannerSettings = ScannerSettings()
    rule: tuple[Rule, ...] = Field((), max_length=1000)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [problem for index in (None, *range(len(self.rule))) for problem in self._contradictions(index)]
        if problems:
            raise Contradiction(problems)
        return self

    def _contradictions(self, index: int | None) -> list[tuple[tuple[str | int, ...], str]]:
        """What does not go together in the tables, or in a rule over them."""
        rules = self._merged(index)
        table: Judging | Rule = self.judging if index is None else self.rule[index]
        where: tuple[str | int, ...] = ("judging",) if index is None else ("rule", index)
        said = table.model_fields_set

        def at(*keys: str) -> tuple[str | int, ...]:
            return (*where, next((key for key in keys if key in said), keys[0]))

        problems = []
        if "scanner" not in rules.judges:
            problems.append((at("judges"), "without the scanner nothing would be judged, and everything held"))
        if not rules.require <= rules.judges:
            problems.append((at("require", "judges"), "a judge that is required must be among `judges`"))
        for key, value in (("on_hostile", rules.on_hostile), ("on_unsure", rules.on_unsure)):
            if value == "pass" and not rules.trial:
                problems.append((at(key, "trial"), '"pass" is for trials only: say trial = true beside it'))
        if _STRICTNESS[rules.on_unsure] > _STRICTNESS[rules.on_hostile]:
            problems.append((at("on_unsure", "on_hostile"), "on_unsure must not be stricter than on_hostile"))
        if table.trial and "pass" not in (rules.on_hostile, rules.on_unsure) and not (index is None and any("pass" in _passes(rule) for rule in self.rule)):
            problems.append((at("trial"), 'a trial of nothing: say on_hostile = "pass" or on_unsure = "pass" beside it'))
        return problems

    @cached_property
    def version(self) -> str:
        """First 16 hex digits of the SHA-256 of the policy's own JSON: what verdicts and approvals name."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]

    def passes(self, method: str, path: str) -> bool:
        """Whether a response to this request may be something else than MCP. The query is no part of the path."""
        bare = path.partition("?")[0]
        climbs = ".." in bare.replace("%2e", ".").replace("%2E", ".")  # servers decode before they resolve
        return not climbs and any(method == verb and fnmatch.fnmatchcase(bare, glob) for verb, _, glob in (entry.partition(" ") for entry in self.passthrough))

    def denies(self, tool: str) -> str | None:
        """The glob of `tools.deny` that names this tool, for calls and for lists; None where none does.

        Also as a server may read it that trims names or takes letters of other widths for the same: what is denied is so in every spelling.
        """
        if not self.tools.deny:
            return None
        folded = tool.casefold()
        plain = "".join(char for char in unicodedata.normalize("NFKC", folded).casefold() if char.isprintable() and not char.isspace())
        names = {folded, plain}
        return next((glob for glob in self.tools.deny if any(fnmatch.fnmatchcase(name, glob.casefold()) for name in names)), None)

    def for_call(self, server: str, tool: str, method: str = "tools/call") -> ToolRules:
        """What holds for a call, or for another message (tool: `Call.name`, or the method again where it names nothing)."""
        key = (server, tool, method)
        found = self._known.get(key)
        if found is None:
            found = self._find(server, tool, method)
            if len(server) + len(tool) + len(method) <= KNOWN_CHARS:
                if len(self._known) >= KNOWN_CALLS:
                    self._known.clear()
                self._known[key] = found
        return found

    @cached_property
    def _known(self) -> dict[tuple[str, str, str], ToolRules]:
        return {}

    def _find(self, server: str, tool: str, method: str) -> ToolRules:
        matching = next((index for index, rule in enumerate(self.rule) if rule.matches(server, tool, method)), None)
        table = self.servers.get(server)
        state = table.sandbox.changing if table is not None and table.sandbox is not None else ()
        if method == "tools/call":
            rules = self._merged(matching, self.denies(tool), state)
            keeps = table is not None and table.sandbox is not None and table.sandbox.revert
            return replace(rules, revert=keeps and rules.tool_class == "irreversible" and "sandbox" in rules.judges)
        rules = self._merged(matching, None, state)  # only calls of tools run in twins
        return replace(rules, judges=rules.judges - {"sandbox"}, require=rules.require - {"sandbox"})

    def _merged(self, index: int | None, denied: str | None = None, state: tuple[str, ...] = ()) -> ToolRules:
        values = {key: getattr(table, key) for table, keys in ((self.judging, _JUDGED), (self.escrow, _DEADLINES), (self.bounds, _SIZES)) for key in keys}
        if index is not None:
            values.update({key: said for key in values if (said := getattr(self.rule[index], key)) is not None})
        if values["when"] is None:
            values["when"] = "before" if values["tool_class"] == "irreversible" else "alongside"
        return ToolRules(**values, denied=denied, rule=index, state=state)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without what was remembered about the original."""
        copied = super().model_copy(update=update, deep=deep)
        for remembered in ("version", "_known"):
            copied.__dict__.pop(remembered, None)
        return copied


def _passes(rule: Rule) -> tuple[Unclean | None, Unclean | None]:
    return rule.on_hostile, rule.on_unsure
