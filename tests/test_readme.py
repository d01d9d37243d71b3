"""README keeps its promises: every command, option of the policy and make target stands in it as it is, and every link leads somewhere."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel
from typer.core import TyperCommand, TyperGroup

from enforcer.cli.app import app
from escrow.jury_settings import JurySettings
from escrow.policy import Bearer, Judging, Policy, Tls, load
from escrow.sandbox.settings import SandboxSettings

ABSENT = {"tls", "principal.bearer", "jury", "servers", "rule", *(f"judging.{key}" for key in ("when", "reads", "writes", "connects", "executes"))}
"""Tables that are absent by default, and keys whose default is the class's."""

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted(ROOT.glob("*.md"))
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_MAKE = re.compile(r"\bmake ([a-z]+)\b")
_FENCE = re.compile(r"```toml\n(.*?)```", re.S)


def commands() -> Iterator[tuple[str, TyperCommand]]:
    """Every command that does something, with its words: ("escrow ls", …)."""

    def below(group: TyperGroup, words: tuple[str, ...]) -> Iterator[tuple[str, TyperCommand]]:
        for name, command in group.commands.items():
            if isinstance(command, TyperGroup):
                yield from below(command, (*words, name))
            else:
                assert isinstance(command, TyperCommand)
                yield " ".join((*words, name)), command

    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    return below(root, ())


COMMANDS = dict(commands())


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a policy table, tables named with a dot."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + (field.alias or name)


def test_there_are_commands_to_check() -> None:
    assert {"start", "proxy", "escrow approve", "tools diff"} <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_stands_in_the_readme(words: str) -> None:
    assert f"holdfast {words}" in README


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_and_every_option_has_help(words: str) -> None:
    command = COMMANDS[words]
    assert command.help and (command.help.strip().endswith(".") or "Example: holdfast" in command.help), "help is sentences, or ends with an example"
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{words} {parameter.name} has no help"


def test_every_command_that_the_readme_types_exists() -> None:
    for typed in re.findall(r"^holdfast ([a-z]+(?: [a-z]+)?)", README, re.M):
        first = typed.split()[0]
        assert typed in COMMANDS or first in COMMANDS, f"holdfast {typed}"


def test_every_option_that_the_readme_types_exists() -> None:
    for line in re.findall(r"^holdfast (.+)$", README, re.M):
        typed = line.partition("#")[0].split()
        words = " ".join(typed[:2]) if " ".join(typed[:2]) in COMMANDS else typed[0]
        known = {option for parameter in COMMANDS[words].params for option in parameter.opts}
        for option in (word for word in typed if word.startswith("-") and word != "-"):
            assert option in known, f"holdfast {words} {option}"


def test_the_policy_in_the_readme_is_the_default_one_with_every_key() -> None:
    written = _FENCE.findall(README)[0]
    assert load(written) == Policy()
    document = tomllib.loads(written)
    for path in keys(Policy):
        if path in ABSENT:
            continue
        place: object = document
        for part in path.split("."):
            assert isinstance(place, dict) and part in place, f"{path} is not in README's policy"
            place = place[part]


def test_the_tables_absent_by_default_are_shown_with_every_key() -> None:
    written = _FENCE.findall(README)[1]
    load(written)
    document = tomllib.loads(written)
    assert set(document["tls"]) == set(Tls.model_fields)
    assert set(document["principal"]["bearer"]) == set(Bearer.model_fields)
    assert set(document["jury"]) == set(JurySettings.model_fields) and document["rule"]
    assert set(document["servers"]["documents"]["sandbox"]) == set(SandboxSettings.model_fields)
    assert {key for key in Judging.model_fields if f"judging.{key}" in ABSENT} <= {key for rule in document["rule"] for key in rule}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for target in _LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    text = page.read_text("utf-8")
    named = set(_MAKE.findall("\n".join(re.findall(r"`[^`\n]+`|^make .*$", text, re.M))))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_module_named_can_be_run(page: Path) -> None:
    for name in set(re.findall(r"python -m (tests[\w.]*)", page.read_text("utf-8"))):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


def test_the_picture_carries_what_a_person_needs_and_fetches_nothing() -> None:
    picture = (ROOT / "docs" / "held.svg").read_text("utf-8").replace("&#160;", " ")
    for words in ("escrow ls", "escrow show", "HOSTILE", "rule.override.ignore-previous", "html-hidden", "escrow approve", "escrow deny"):
        assert words in picture
    assert "@font-face" not in picture and "url(http" not in picture
