"""Tokens: shown once, kept as digests, bounded, and none is good where the file cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.control.tokens import MOST, Token, Tokens, TokensFailed
from escrow.supervisor.scopes import Scope

READ, POLICY, APPROVE = frozenset({Scope.READ}), frozenset({Scope.POLICY}), frozenset({Scope.APPROVE})


def issue(tokens: Tokens, name: str = "t", scopes: frozenset[Scope] = READ, acts_as: tuple[str, ...] = (), may_apply: bool = False) -> tuple[Token, str]:
    token, secret = tokens.draft(name, scopes, acts_as, "root", 1000.0, 2000.0, may_apply)
    tokens.keep(token)
    return token, secret


def test_a_token_is_found_by_its_secret_and_by_nothing_else(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    token, secret = issue(tokens)
    assert tokens.find(secret) == token
    for other in ("", secret[:-1], secret + "x", token.digest, secret.upper(), "\ud800"):
        assert tokens.find(other) is None


def test_the_file_holds_no_secret_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    _, secret = issue(Tokens(path))
    assert secret.removeprefix("hft_") not in path.read_text() and path.stat().st_mode & 0o777 == 0o600
    assert Tokens(path).find(secret) is not None, "it outlives the daemon"


def test_a_revoked_token_is_none_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    tokens = Tokens(path)
    token, secret = issue(tokens)
    kept, other = issue(tokens, "other")
    tokens.revoke(tokens.named("t"))
    assert tokens.find(secret) is None and Tokens(path).find(secret) is None
    assert Tokens(path).find(other) == kept
    with pytest.raises(KeyError):
        tokens.named(token.name)


@pytest.mark.parametrize(
    ("scopes", "acts_as", "may_apply", "why"),
    [(APPROVE, (), False, "names whom it acts as"), (READ, (), True, "only a token with scope `policy`")],
)
def test_what_a_token_needs_is_said(tmp_path: Path, scopes: frozenset[Scope], acts_as: tuple[str, ...], may_apply: bool, why: str) -> None:
    with pytest.raises(TokensFailed, match=why):
        issue(Tokens(tmp_path / "t"), scopes=scopes, acts_as=acts_as, may_apply=may_apply)
    issue(Tokens(tmp_path / "t"), scopes=scopes | POLICY, acts_as=("local:uid=7",), may_apply=may_apply)


def test_a_name_is_given_once(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "t")
    issue(tokens)
    with pytest.raises(TokensFailed, match="with this name"):
        issue(tokens)


def test_there_are_only_so_many(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "t")
    for number in range(MOST):
        tokens._tokens = (*tokens._tokens, Token(str(number), "0" * 64, READ, (), "root", 0, 9e9))
    with pytest.raises(TokensFailed, match="revoke some"):
        issue(tokens)


def test_a_file_that_cannot_be_read_makes_every_token_bad_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    _, secret = issue(Tokens(path))
    path.write_text(path.read_text()[:-2])
    tokens = Tokens(path)
    assert tokens.problem is not None and tokens.find(secret) is None
    with pytest.raises(TokensFailed, match="cannot be read"):
        issue(tokens, "new")
    assert path.read_text()[-1] != "]"


def test_what_cannot_be_written_is_not_issued(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "missing" / "tokens.json")
    with pytest.raises(TokensFailed, match="cannot be written"):
        issue(tokens)
    assert tokens.all() == ()
