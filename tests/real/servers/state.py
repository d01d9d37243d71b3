"""What a test and the server under it share: a directory with documents, prepared answers, switches, and the runs made.

The test writes files, the server reads them at each call; the server appends a line for each run of a tool, so that a
test can prove how often a tool really ran.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class State:
    """A server's directory: `docs/NAME`, `answers/NAME.json`, `poison.json`, `runs.jsonl`."""

    root: Path

    def create(self) -> None:
        for name in ("docs", "answers"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def ran(self, tool: str, **arguments: Any) -> None:
        """Record one run. One write of less than a pipe's buffer to an O_APPEND file is not torn."""
        line = json.dumps({"tool": tool, "arguments": arguments}).encode() + b"\n"
        descriptor = os.open(self.root / "runs.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def runs(self, tool: str, **arguments: Any) -> int:
        """How often the tool ran with at least these arguments."""
        path = self.root / "runs.jsonl"
        if not path.exists():
            return 0
        made = [json.loads(line) for line in path.read_text().splitlines()]
        return sum(run["tool"] == tool and arguments.items() <= run["arguments"].items() for run in made)

    def write_document(self, name: str, text: str) -> None:
        (self.root / "docs" / name).write_text(text)

    def document(self, name: str) -> str:
        return (self.root / "docs" / Path(name).name).read_text()

    def write_answer(self, name: str, result: dict[str, Any]) -> None:
        """Prepare a tools/call result, exactly as the SDK will read it."""
        (self.root / "answers" / f"{name}.json").write_text(json.dumps(result))

    def answer(self, name: str) -> dict[str, Any]:
        value = json.loads((self.root / "answers" / f"{Path(name).name}.json").read_text())
        if not isinstance(value, dict):
            raise TypeError(f"the prepared answer {name!r} is no object")
        return value

    def write_poison(self, tools: dict[str, dict[str, Any]]) -> None:
        """Change members of listed tools from now on: {"TOOL": {"description": …}}; {} is the honest list again."""
        (self.root / "poison.json").write_text(json.dumps(tools))

    def poison(self) -> dict[str, dict[str, Any]]:
        path = self.root / "poison.json"
        if not path.exists():
            return {}
        value: dict[str, dict[str, Any]] = json.loads(path.read_text())
        return value
