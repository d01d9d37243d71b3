"""docs/supervisor.md names every tool, argument and scope."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from escrow.supervisor.scopes import Scope
from escrow.supervisor.tools import TOOLS

TEXT = (Path(__file__).parents[2] / "docs" / "supervisor.md").read_text("utf-8")


@pytest.mark.parametrize("tool", list(TOOLS.values()), ids=lambda tool: tool.name)
def test_a_tool_stands_there_with_its_scope(tool: object) -> None:
    name, scope = getattr(tool, "name", ""), getattr(tool, "scope", "")
    assert re.search(rf"^\|.*`{name}`.*\| {scope} \|", TEXT, re.MULTILINE)


@pytest.mark.parametrize("scope", list(Scope))
def test_a_scope_stands_there(scope: Scope) -> None:
    assert f"| `{scope}` |" in TEXT


def test_the_filters_of_verdicts_stand_there() -> None:
    for name in TOOLS["get_verdicts"].takes.model_fields:
        assert f"`{name}`" in TEXT
