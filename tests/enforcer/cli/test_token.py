"""`holdfast token`, as it is typed."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from enforcer.cli import token
from enforcer.cli.app import app


@pytest.mark.parametrize(("text", "seconds"), [("30d", 2_592_000), ("12h", 43_200), ("5m", 300), ("1s", 1)])
def test_a_time_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert token._seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "0d", "1y", "1d1h", "9999999d"])
def test_anything_else_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="30d"):
        token._seconds(text)


@pytest.mark.parametrize("words", [("--name", "x"), ("--scope", "read"), ("--name", "x", "--scope", "everything")])
def test_a_name_and_a_scope_that_exists_are_needed(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["token", "new", *words]).exit_code == 2
