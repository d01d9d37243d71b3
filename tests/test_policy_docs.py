"""docs/policy.md has every key of the policy with its default, and nothing that does not work."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from enforcer.cli.cases import read_cases
from enforcer.policies import FIXED
from escrow.policy import Policy, Rule, load
from escrow.policy.patch import every

PAGE = (Path(__file__).parents[1] / "docs" / "policy.md").read_text("utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
ROWS = dict(re.findall(r"^\| `([a-zA-Z_.]+)` \| (.+?) \| .+ \|$", PAGE, re.M))


def keys(table: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its default, also of tables that are absent by default; rules apart."""
    for name, field in table.model_fields.items():
        kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, types.UnionType) else (field.annotation,)
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        named = next((kind for kind in get_args(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is not None:
            yield from keys(inner, f"{above}{name}.")
        elif get_origin(field.annotation) is dict and named is not None:
            yield from keys(named, f"{above}{name}.NAME.")
        elif name != "rule":
            yield above + (field.alias or name), field.get_default(call_default_factory=True)


KEYS = dict(keys(Policy))
RULE_KEYS = [field.alias or name for name, field in Rule.model_fields.items()]


def test_there_are_keys_to_check() -> None:
    assert {"fail", "judging.trial", "jury.url", "principal.bearer.issuer", "scanner.workers", "judging.class", "servers.NAME.sandbox.command"} <= set(
        KEYS
    ) and set(every(Policy())) - {"rule"} <= set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_stands_there_with_its_default(key: str) -> None:
    default, shown = KEYS[key], ROWS[key]
    if default is PydanticUndefined:
        assert shown == "required"
    elif default is not None:
        plain = sorted(default) if isinstance(default, frozenset) else default
        assert shown == f"`{json.dumps(plain)}`"


def test_no_key_stands_there_that_does_not_exist() -> None:
    assert set(ROWS) - {f"rule.{name}" for name in RULE_KEYS} == set(KEYS)


@pytest.mark.parametrize("name", RULE_KEYS)
def test_every_key_of_a_rule_stands_there(name: str) -> None:
    assert f"`rule.{name}`" in PAGE


@pytest.mark.parametrize("key", FIXED)
def test_what_a_restart_is_needed_for_stands_there(key: str) -> None:
    section = PAGE[PAGE.index("## Changing it") :]
    assert f"`{key}`" in section or f"`[{key}]`" in section


def test_the_examples_work(tmp_path: Path) -> None:
    policy, cases = EXAMPLES
    assert len(load(policy).rule) == 2
    (tmp_path / "cases.toml").write_text(cases)
    assert [case.expect for case in read_cases(tmp_path / "cases.toml")] == ["hold", "release", "refuse"]
