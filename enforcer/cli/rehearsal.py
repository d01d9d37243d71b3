"""What a policy would do with a call or a result, without a gate: `holdfast policy explain` and `policy test`.

The same rules, scanner and decisions as in the daemon; what only the daemon knows (trusted tool lists, a session's taint, a jury's answer) is
not there, and `Rehearsed.missing` says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from escrow import jsonrpc
from escrow.decision import Decision, Ruling, decide, decide_arguments
from escrow.item import verdict_json
from escrow.policy import Policy, ToolRules
from escrow.policy.places import Path as Place
from escrow.verdict import Finding, Verdict, unsure

if TYPE_CHECKING:
    from enforcer.scanner.judge import Scanner
    from enforcer.scanner.outgoing import Outgoing

Where = Callable[[Place], str]
"""Where a value of the policy comes from: `policy.toml:12`, "default", "live change by …"."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A policy to rehearse. name: where it comes from as a whole. server: what the guarded server is called."""

    policy: Policy
    name: str
    where: Where
    server: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What is rehearsed: one call's way out (`arguments`) or back (`result`: a JSON-RPC message, a result or a text); neither: the rules only."""

    tool: str
    server: str
    method: str = "tools/call"
    result: bytes | None = None
    arguments: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """ruling, recorded: None where nothing was given to judge. why: in sentences, ours."""

    asked: Asked
    rules: ToolRules
    verdicts: tuple[Verdict, ...]
    ruling: Ruling | None
    recorded: str | None
    would_have: Ruling | None
    why: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def grounds(self) -> set[str]:
        """Names that a test's `because` can have: the rules of the reasons, and tools.deny, bounds.*."""
        named = {reason.rule for verdict in self.verdicts for reason in verdict.reasons}
        return named | ({"tools.deny"} if self.rules.denied is not None else set())


@dataclass
class Rehearsal:
    """Judges under one policy. The scanner is loaded when it is first needed. Raises model.ModelMissing then."""

    chosen: Chosen

    @cached_property
    def scanner(self) -> Scanner:
        from enforcer.scanner.judge import Scanner  # slow to import, and most commands need none

        return Scanner(self.chosen.policy.scanner, with_model=True)

    @cached_property
    def outgoing(self) -> Outgoing:
        from enforcer.scanner.outgoing import Outgoing

        return Outgoing(self.chosen.policy.scanner)

    def run(self, asked: Asked) -> Rehearsed:
        rules = self.chosen.policy.for_call(asked.server, asked.tool, asked.method)
        why = [self._rule(rules)]
        if rules.denied is not None:
            why.append(f'tools.deny has "{rules.denied}" ({self.chosen.where(("tools", "deny"))}): it is refused, and taken out of lists')
            return Rehearsed(asked, rules, (), Ruling.REFUSE, "denied", None, tuple(why))
        if asked.arguments is not None:
            return self._out(asked, rules, why)
        if asked.result is not None:
            return self._back(asked, rules, why)
        return Rehearsed(asked, rules, (), None, None, None, tuple(why))

    def _back(self, asked: Asked, rules: ToolRules, why: list[str]) -> Rehearsed:
        assert asked.result is not None
        try:
            document = _document(asked.result)
        except jsonrpc.Unreadable as error:
            why.append(f"it is refused as it cannot be read in one way only: {error}")
            return Rehearsed(asked, rules, (), Ruling.REFUSE, "unreadable", None, tuple(why))
        missing = ["the jury is not asked"] if self.chosen.policy.jury is not None and "jury" in rules.judges else []
        if asked.method == "tools/list":
            missing.append("the list is not compared with the trusted one")
        verdicts = [self.scanner.judge(document)]
        if len(asked.result) > rules.result_bytes:
            verdicts.append(unsure("bounds", "bounds.size", "It is larger than the policy allows for this tool."))
        decision = decide(tuple(verdicts), rules.require, rules.on_hostile, rules.on_unsure, rules.trial)
        key = {"hostile": "on_hostile", "unsure": "on_unsure"}.get(decision.recorded)
        if decision.recorded == "trial":
            key = "on_hostile" if any(verdict.finding is Finding.HOSTILE for verdict in verdicts) else "on_unsure"
        return self._judged(asked, rules, verdicts, decision, key, why, missing)

    def _out(self, asked: Asked, rules: ToolRules, why: list[str]) -> Rehearsed:
        params = {"name": asked.tool, "arguments": asked.arguments} if asked.method == "tools/call" else (asked.arguments or {})
        raw = json.dumps({"jsonrpc": "2.0", "id": 1, "method": asked.method, "params": params}).encode()
        if len(raw) > rules.request_bytes:
            why.append(f"it is larger than request_bytes = {rules.request_bytes} ({self._from('request_bytes', rules)})")
            return Rehearsed(asked, rules, (), Ruling.REFUSE, "too large", None, tuple(why))
        verdicts = [] if rules.outgoing == "off" else [self.outgoing.judge({"method": asked.method, "params": params}).verdict]
        decision = decide_arguments(tuple(verdicts), rules.outgoing, rules.taint)
        key = None if decision.recorded == "scanner only" else "outgoing"
        return self._judged(
            asked, rules, verdicts, decision, key, why, ["canaries, and addresses that only a result brought into the session (taint), are not known here"]
        )

    def _judged(
        self, asked: Asked, rules: ToolRules, verdicts: list[Verdict], decision: Decision, key: str | None, why: list[str], missing: list[str]
    ) -> Rehearsed:
        for verdict in verdicts:
            grounds = ", ".join(sorted({reason.rule for reason in verdict.reasons}))
            why.append(f"{verdict.judge} says {verdict.finding.value}" + (f": {grounds}" if grounds else ""))
        if key is not None:
            why.append(f'{key} = "{getattr(rules, key)}" ({self._from(key, rules)})')
        if decision.would_have is not None:
            why.append(f"it passes on trial only: without, it would be {'held' if decision.would_have is Ruling.HOLD else 'refused'}")
        return Rehearsed(asked, rules, tuple(verdicts), decision.ruling, decision.recorded, decision.would_have, tuple(why), tuple(missing))

    def _rule(self, rules: ToolRules) -> str:
        if rules.rule is None:
            return "no rule is for it: the tables hold"
        rule = self.chosen.policy.rule[rules.rule]
        said = ", ".join(f"{key} = {json.dumps(list(value))}" for key in ("tools", "servers", "methods") if (value := getattr(rule, key)) is not None)
        return f"rule {rules.rule} ({self.chosen.where(('rule', rules.rule))}) is the first that is for it: {said}"

    def _from(self, key: str, rules: ToolRules) -> str:
        """Where a setting of these rules comes from."""
        if rules.rule is not None and getattr(self.chosen.policy.rule[rules.rule], key) is not None:
            return self.chosen.where(("rule", rules.rule, _written(key)))
        table = "escrow" if key in ("claim_after_s", "hold_for_s") else "bounds" if key.endswith("_bytes") else "judging"
        return self.chosen.where((table, _written(key)))

    def settings(self, rules: ToolRules) -> dict[str, dict[str, Any]]:
        """Every setting with its value and where it comes from."""
        found = {}
        for key in ToolRules.__dataclass_fields__:
            if key not in ("denied", "rule", "state", "revert"):  # the last two are of the server's own table
                value = getattr(rules, key)
                found[_written(key)] = {"value": sorted(value) if isinstance(value, frozenset) else value, "from": self._from(key, rules)}
        return found


def _written(key: str) -> str:
    """A key as the policy has it: `class` is no name in Python."""
    return "class" if key == "tool_class" else key


def outcomes(rules: ToolRules) -> dict[str, str]:
    """What each finding about a result would lead to."""
    found = {}
    for finding in Finding:
        verdicts = tuple(Verdict(judge, finding, 0.0) for judge in sorted(rules.require | {"scanner"}))
        decision = decide(verdicts, rules.require, rules.on_hostile, rules.on_unsure, rules.trial)
        found[finding.value] = decision.ruling.value if decision.would_have is None else "release on trial"
    return found


def to_json(rehearsed: Rehearsed, rehearsal: Rehearsal) -> dict[str, Any]:
    rules, chosen = rehearsed.rules, rehearsal.chosen
    return {
        "tool": rehearsed.asked.tool,
        "server": rehearsed.asked.server,
        "method": rehearsed.asked.method,
        "policy": {"version": chosen.policy.version, "source": chosen.name},
        "rule": None if rules.rule is None else {"index": rules.rule, "where": chosen.where(("rule", rules.rule))},
        "denied": rules.denied,
        "settings": rehearsal.settings(rules),
        "outcomes": outcomes(rules),
        "verdicts": [verdict_json(verdict) for verdict in rehearsed.verdicts],
        "decision": _decision(rehearsed),
        "why": list(rehearsed.why),
        "missing": list(rehearsed.missing),
    }


def _decision(rehearsed: Rehearsed) -> dict[str, Any] | None:
    if rehearsed.ruling is None:
        return None
    would_have = None if rehearsed.would_have is None else rehearsed.would_have.value
    return {"ruling": rehearsed.ruling.value, "recorded": rehearsed.recorded, "would_have": would_have}


def _document(raw: bytes) -> Any:
    """What the scanner is given: a JSON-RPC message as in the gate; another JSON object as a result; anything else as the text of one."""
    try:
        value = jsonrpc.parse(raw)
    except jsonrpc.NotJson:
        value = None
    if not isinstance(value, dict):
        return {"result": {"content": [{"type": "text", "text": raw.decode("utf-8", "replace")}]}}
    if "jsonrpc" not in value:
        return {"result": value}
    message = jsonrpc.read(raw)
    if isinstance(message, jsonrpc.Response):
        return {"error" if message.is_error else "result": message.value}
    return {"method": message.method, "params": message.params}
