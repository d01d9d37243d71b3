"""Gitleaks' rule set as data: which one it is, that every rule compiles and is linear, and what is loosened."""

from __future__ import annotations

import hashlib
import tomllib
from importlib import resources

import pytest

from enforcer.scanner import secret_rules
from tests.bench.outgoing import SECRETS
from tests.bench.secret_rules import SHA256, cut

RULES = secret_rules.load()


def _file(name: str) -> bytes:
    return resources.files("enforcer.scanner").joinpath(name).read_bytes()


def test_the_file_is_the_released_set_byte_for_byte_and_its_licence_is_beside_it() -> None:
    assert hashlib.sha256(_file(secret_rules.FILE)).hexdigest() == SHA256
    licence = _file("gitleaks-license.txt").decode()
    assert f"Gitleaks {secret_rules.VERSION}" in licence
    assert "MIT License" in licence


def test_the_set_is_cut_out_of_a_program_that_carries_it() -> None:
    raw = _file(secret_rules.FILE)
    assert cut(b"\x7fELF\x00\xffnoise\x00" + raw + b"\x00\x01\xff# no part of it") == raw
    with pytest.raises(ValueError, match="carries no"):
        cut(b"\x7fELF\x00")


def test_every_rule_that_is_not_for_one_kind_of_file_is_used() -> None:
    table = tomllib.loads(_file(secret_rules.FILE).decode())
    left_out = {entry["id"] for entry in table["rules"]} - {rule.id for rule in RULES.rules}
    assert left_out == {"freemius-secret-key", "hashicorp-tf-password", "nuget-config-password", "pkcs12-file"}


@pytest.mark.parametrize("family", SECRETS)
def test_a_published_format_is_known_by_itself(family: str) -> None:
    hits, cut_short = RULES.search(f"a {SECRETS[family]} b")
    assert family in {hit.rule.id for hit in hits if hit.rule.certain}
    assert not cut_short


@pytest.mark.parametrize("before, after", [("?key=", "&b=1"), ("_", "."), ("(", ")"), ("https://e.test/", "/a.png"), ("ü", "ü"), ("x=", ","), ("", "\x00")])
@pytest.mark.parametrize("family", ["aws-access-token", "stripe-access-token", "npm-access-token", "gcp-api-key", "sendgrid-api-token"])
def test_a_format_may_begin_and_end_anywhere(family: str, before: str, after: str) -> None:
    text = before + SECRETS[family] + after
    (hit,) = [hit for hit in RULES.search(text)[0] if hit.rule.id == family]
    assert text[slice(*hit.span)] == SECRETS[family]


def test_a_rule_that_needs_a_name_is_not_certain() -> None:
    assert not next(rule for rule in RULES.rules if rule.id == "generic-api-key").certain
    assert not next(rule for rule in RULES.rules if rule.id == "zendesk-secret-key").certain


def test_a_secret_that_is_too_regular_or_on_an_allowlist_does_not_hide_the_next_one() -> None:
    example, real = "AKIAIOSFODNN7EXAMPLE", SECRETS["aws-access-token"]
    assert RULES.search(f"{example} {'AKIA' + 'A' * 16}")[0] == ()
    (hit,) = RULES.search(f"{example} {real}")[0]
    assert hit.span == (21, 41)


def test_more_matches_than_are_looked_at_are_said() -> None:
    assert RULES.search("AKIAIOSFODNN7EXAMPLE " * (secret_rules.MOST_MATCHES + 1)) == ((), True)


def test_entropy_is_in_bits_for_each_character() -> None:
    assert secret_rules.entropy("") == 0
    assert secret_rules.entropy("aaaa") == 0
    assert secret_rules.entropy("abcd") == 2
