"""The documents name only commands that exist, and every key of the policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from enforcer.cli.app import app
from escrow.policy import Policy

ROOT = Path(__file__).parent.parent
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TOP = typer.main.get_command(app)
COMMANDS: dict[str, object] = getattr(TOP, "commands", {})


def unknown(text: str) -> list[str]:
    """What is written as a command, in code, and is none."""
    wrong = []
    for code in re.findall(r"```(?:sh|console|bash)?\n(.*?)```|`([^`\n]+)`", text, re.DOTALL):
        for first, second in re.findall(r"(?:^|[\s;|$])holdfast ([a-z]+)(?: ([a-z]+))?", "".join(code)):
            below = getattr(COMMANDS.get(first), "commands", None)
            if first not in COMMANDS or (below is not None and second and second not in below):
                wrong.append(f"{first} {second}".strip())
    return wrong


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in DOCS])
def test_every_command_in_a_document_exists(path: Path) -> None:
    assert unknown(path.read_text("utf-8")) == []


def test_a_command_that_does_not_exist_is_found() -> None:
    assert unknown("Try `holdfast fly` or `holdfast escrow burn hf-1`, not `holdfast status`.") == ["fly", "escrow burn"]


def keys(table: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, key in table.model_fields.items():
        if isinstance(key.annotation, type) and issubclass(key.annotation, BaseModel):
            yield from keys(key.annotation, f"{above}{name}.")
        else:
            yield above + (key.alias or name)


@pytest.mark.parametrize("key", list(keys(Policy)))
def test_every_key_of_the_policy_stands_in_a_document(key: str) -> None:
    assert any(re.search(rf"\b{key.rpartition('.')[2]}\b", path.read_text("utf-8")) for path in DOCS)
