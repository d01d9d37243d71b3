"""The cases of `holdfast policy test`: a TOML or JSON file of calls and results, each with what is expected of the policy."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from enforcer.cli.rehearsal import Asked, Rehearsed
from escrow.policy import PolicyError
from escrow.policy.reading import read_as, validate


class Case(BaseModel):
    """One of text (of a tool's result), result (a result or a whole JSON-RPC message) or arguments (of a call) is given, or none for a denied tool.

    expect: what must happen. because: a glob that one of the reasons must match (`rule.*`, `model.instruction`, `tools.deny`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str
    expect: Literal["release", "hold", "refuse"]
    name: str = ""
    server: str = ""
    method: str = "tools/call"
    text: str | None = None
    result: dict[str, Any] | None = None
    arguments: dict[str, Any] | None = None
    because: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Case:
        if sum(given is not None for given in (self.text, self.result, self.arguments)) > 1:
            raise ValueError("give one of text, result and arguments")
        return self

    def asked(self, server: str) -> Asked:
        """server: of a case that names none."""
        result = None if self.text is None else json.dumps({"content": [{"type": "text", "text": self.text}]}).encode()
        if self.result is not None:
            result = json.dumps(self.result).encode()
        return Asked(self.tool, self.server or server, self.method, result, self.arguments)

    def failures(self, found: Rehearsed) -> list[str]:
        """What is not as expected, in sentences."""
        if found.ruling is None:
            return ["nothing was judged: give text, result or arguments"]
        wrong = [] if found.ruling == self.expect else [f"expected {self.expect}, got {found.ruling.value}"]
        if self.because is not None and not any(fnmatch.fnmatchcase(ground, self.because) for ground in found.grounds):
            wrong.append(f"no reason is {self.because}; there are: {', '.join(sorted(found.grounds)) or 'none'}")
        return wrong


class _Cases(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    case: Annotated[tuple[Case, ...], Field(min_length=1, max_length=10_000)]


def read_cases(path: Path) -> tuple[Case, ...]:
    """`[[case]]` tables, or in JSON a list of cases. Raises PolicyError, which names line and key."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: {error}") from None
    if path.suffix != ".json":
        return read_as(_Cases, text, str(path))[0].case
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{path}: {error}") from None
    return validate(_Cases, found if isinstance(found, dict) else {"case": found}, str(path)).case
