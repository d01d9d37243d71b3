"""What differs from tool to tool: the `[[rule]]` tables, and what they make of one call.

The first rule that matches counts, alone; what it does not say comes from the policy's tables.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from pydantic import Field, model_validator

from escrow.policy.tables import (
    ClaimAfterS,
    Glob,
    Globs,
    HoldForS,
    Judge,
    Judges,
    MessageBytes,
    OutgoingChoice,
    Outside,
    RequiredJudges,
    Session,
    Table,
    Taint,
    ToolClass,
    Unclean,
    When,
)


class Rule(Table):
    """One `[[rule]]`. tools, servers, methods: globs of what it is for; each that is said must match.

    `tools` are the names of tools in tools/call; a rule that names tools is for nothing else.
    Everything else has the name, the meaning and the range of the key in [judging], [escrow] or [bounds] that it stands in for.
    """

    tools: tuple[Glob, ...] | None = Field(None, min_length=1, max_length=1000)
    servers: tuple[Glob, ...] | None = Field(None, min_length=1, max_length=1000)
    methods: tuple[Glob, ...] | None = Field(None, min_length=1, max_length=1000)
    judges: Judges | None = None
    require: RequiredJudges | None = None
    on_hostile: Unclean | None = None
    on_unsure: Unclean | None = None
    trial: bool | None = None
    taint: Taint | None = None
    outgoing: OutgoingChoice | None = None
    tool_class: ToolClass | None = Field(None, alias="class")
    when: When | None = None
    outside: Outside | None = None
    session: Session | None = None
    reads: Globs | None = None
    writes: Globs | None = None
    connects: Globs | None = None
    executes: Globs | None = None
    volatile: Globs | None = None
    claim_after_s: ClaimAfterS | None = None
    hold_for_s: HoldForS | None = None
    request_bytes: MessageBytes | None = None
    result_bytes: MessageBytes | None = None

    @model_validator(mode="after")
    def _for_something(self) -> Rule:
        if self.tools is None and self.servers is None and self.methods is None:
            raise ValueError("say which tools, servers or methods it is for")
        return self

    def matches(self, server: str, tool: str, method: str) -> bool:
        if self.tools is not None and (method != "tools/call" or not _any(tool, self.tools)):
            return False
        if self.servers is not None and not _any(server, self.servers):
            return False
        return self.methods is None or _any(method, self.methods)


def _any(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


@dataclass(frozen=True, slots=True)
class ToolRules:
    """What the policy says of one call: the tables, with the first matching rule over them.

    denied: the glob of `tools.deny` that names the tool; None where none does.
    rule: the index of the rule that matched, from 0; None where none did.
    when: decided, by the class where the policy says nothing. state: paths in the server's twin that calls change; empty without a twin.
    revert: whether a clone of the server's state is kept before the call.
    """

    judges: frozenset[Judge]
    require: frozenset[str]
    on_hostile: Unclean
    on_unsure: Unclean
    trial: bool
    taint: Taint
    outgoing: OutgoingChoice
    claim_after_s: float
    hold_for_s: float
    request_bytes: int
    result_bytes: int
    denied: str | None = None
    rule: int | None = None
    tool_class: ToolClass = "irreversible"
    when: When = "before"
    outside: Outside = "hold"
    session: Session = "fresh"
    reads: tuple[str, ...] | None = None
    writes: tuple[str, ...] | None = None
    connects: tuple[str, ...] | None = None
    executes: tuple[str, ...] | None = None
    volatile: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    revert: bool = False
