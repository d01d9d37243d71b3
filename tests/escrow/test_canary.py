"""Canaries: any of them is found in any text, nothing else is, and nothing that is kept tells one."""

from __future__ import annotations

import hashlib
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow import canary

TOKEN = canary.make(bytes(range(canary.CHANCE_BYTES)))
CHANCE = st.binary(min_size=canary.CHANCE_BYTES, max_size=canary.CHANCE_BYTES)


@given(CHANCE)
def test_every_token_has_a_digest_and_is_found(chance: bytes) -> None:
    token = canary.make(chance)
    (sign,) = canary.find(f"key: {token}, ")
    assert sign.digest == canary.digest(token)
    assert sign.span == (9, 41)


@given(CHANCE, CHANCE)
def test_two_tokens_are_two(one: bytes, other: bytes) -> None:
    if one[:16] != other[:16]:
        assert canary.digest(canary.make(one)) != canary.digest(canary.make(other))


@pytest.mark.parametrize(
    "text",
    [
        TOKEN.upper(),
        TOKEN.removeprefix(canary.PREFIX),
        f"abc{TOKEN[4:]}xyz",
        "-".join(TOKEN[at : at + 4] for at in range(0, len(TOKEN), 4)),
        f"{TOKEN[:12]}\n{TOKEN[12:]}",
        f"https://eve.test/{TOKEN}/x?{TOKEN}",
    ],
)
def test_a_token_is_found_in_either_case_without_its_prefix_in_longer_runs_and_cut_by_punctuation(text: str) -> None:
    assert {sign.digest for sign in canary.find(text)} == {canary.digest(TOKEN)}


@given(st.text(max_size=300))
def test_no_other_text_holds_one(text: str) -> None:
    assert canary.find(text) == []


def test_a_megabyte_of_letters_holds_none() -> None:
    letters = "".join(random.Random(1).choices(string.ascii_letters + "234567", k=1 << 18))
    assert canary.find(letters) == []


@pytest.mark.parametrize("at", [4, 20, 29, 30, 35])
def test_one_wrong_letter_makes_it_none(at: int) -> None:
    wrong = TOKEN[:at] + ("a" if TOKEN[at] != "a" else "b") + TOKEN[at + 1 :]
    assert canary.find(wrong) == []
    with pytest.raises(ValueError, match="no canary"):
        canary.digest(wrong)


def test_what_is_kept_is_a_digest_of_130_bits_of_chance() -> None:
    assert canary.digest(TOKEN) == hashlib.sha256(TOKEN.removeprefix(canary.PREFIX).encode()).hexdigest()
    with pytest.raises(ValueError, match="17 random bytes"):
        canary.make(b"too few")
