"""Commitments: who has the salt's source can tell which bytes they are of, and nobody else."""

from __future__ import annotations

import hashlib
import json

import pytest

from escrow.evidence.canonical import encode
from escrow.evidence.commitment import Salts, commit
from escrow.evidence.entry import Decided, Judged

LOG, ITEM = b"l" * 32, b"i" * 32


def judged(salt: bytes | None, message: bytes = b"the message") -> Judged:
    digest = hashlib.sha256(b"{}").hexdigest()
    return Judged("to-client", "tools/call", "t", "s", "p", None, digest, message, (), "hold", "unsure", "v", item="hf-1", salt=salt)


def members(event: Judged | Decided, seq: int = 7, secret: bytes = LOG) -> dict[str, str]:
    found: dict[str, str] = json.loads(encode(event, seq, "at", secret))
    return found


def test_a_commitment_is_the_digest_of_salt_and_bytes() -> None:
    assert commit(b"salt", b"bytes") == hashlib.sha256(b"saltbytes").hexdigest()


def test_a_large_message_is_committed_to_in_the_same_way() -> None:
    for size in (4095, 4096, 4097, 100_000):
        assert commit(b"salt", b"x" * size) == hashlib.sha256(b"salt" + b"x" * size).hexdigest()


def test_salts_are_the_halves_of_one_keyed_hash() -> None:
    assert b"".join(Salts(LOG, 7).of(None, "judged")) == hashlib.blake2b(b"holdfast entry 7", key=LOG, digest_size=32).digest()
    assert b"".join(Salts(LOG, 7).of(ITEM, "judged")) == hashlib.blake2b(b"holdfast item judged", key=ITEM, digest_size=32).digest()


def test_with_the_logs_secret_a_released_message_can_be_told() -> None:
    message_salt, args_salt = Salts(LOG, 7).of(None, "judged")
    found = members(judged(None))
    assert found["message"] == commit(message_salt, b"the message")
    assert found["args"] == commit(args_salt, hashlib.sha256(b"{}").digest())


def test_the_same_message_twice_looks_different() -> None:
    assert members(judged(None), 7)["message"] != members(judged(None), 8)["message"]
    assert members(judged(None))["message"] != members(judged(None), secret=b"m" * 32)["message"]


def test_a_message_in_escrow_can_be_told_with_its_items_secret_only() -> None:
    found = members(judged(ITEM))
    assert found["message"] == commit(Salts(b"", 0).of(ITEM, "judged")[0], b"the message")
    assert found == members(judged(ITEM), secret=b"m" * 32), "the log's secret has no part in it: destroying the item's ends it"


def test_a_redacted_release_is_committed_to_apart() -> None:
    decided = Decided("hf-1", "approved", "me", "why", "t", "p", "v", released=b"the message", salt=ITEM)
    found = members(decided)
    assert found["message"] == commit(Salts(b"", 0).of(ITEM, "decided")[0], b"the message")
    assert found["message"] != members(judged(ITEM))["message"]
    assert "message" not in members(Decided("hf-1", "denied", "me", "why", "t", "p", "v"))


@pytest.mark.parametrize("salt", [b"", b"x" * 15, b"x" * 65])
def test_a_salt_that_hides_nothing_or_does_not_fit_is_an_error(salt: bytes) -> None:
    with pytest.raises(ValueError):
        members(judged(salt))
