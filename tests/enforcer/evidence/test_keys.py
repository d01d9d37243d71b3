"""The log's secrets: made once, read again, never half."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.evidence import EvidenceError, keys
from escrow.evidence.note import Signed


def test_a_key_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = keys.create(tmp_path, "port-1")
    read = keys.load(tmp_path)
    assert read is not None and read.verifier == made.verifier == keys.public_key(tmp_path)
    assert made.verifier.name.startswith("holdfast/port-1/")
    assert keys.holds(read.sign(3, bytes(32)), made.verifier)
    assert len(keys.load_secret(tmp_path)) == 32


def test_two_logs_never_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert keys.create(tmp_path / "a", "port-1").verifier.name != keys.create(tmp_path / "b", "port-1").verifier.name


def test_a_private_key_is_shown_nowhere(tmp_path: Path) -> None:
    made = keys.create(tmp_path, "port-1")
    secret = keys.key_file(tmp_path).read_text().rpartition("+")[2].strip()
    assert secret not in repr(made) and "Ed25519PrivateKey" not in repr(made)


def test_a_checkpoint_of_another_size_or_key_does_not_hold(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    own, other = keys.create(tmp_path, "a"), keys.create(tmp_path / "b", "a")
    signed = own.sign(3, bytes(32))
    assert not keys.holds(signed, other.verifier)
    assert not keys.holds(Signed(own.sign(4, bytes(32)).checkpoint, signed.key_id, signed.signature), own.verifier)


def test_where_there_is_no_key_there_is_none(tmp_path: Path) -> None:
    assert keys.load(tmp_path) is None
    with pytest.raises(EvidenceError, match="no evidence key"):
        keys.public_key(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[:-9], lambda text: text.replace("PRIVATE", "PUBLIC"), lambda text: "é", lambda text: "", lambda text: text.replace("port-1", "port-2")],
)
def test_a_damaged_key_is_said_to_be(damage: object, tmp_path: Path) -> None:
    keys.create(tmp_path, "port-1")
    path = keys.key_file(tmp_path)
    path.write_text(damage(path.read_text()), "utf-8")  # type: ignore[operator]
    with pytest.raises(EvidenceError, match=r"damaged|not ASCII"):
        keys.load(tmp_path)


@pytest.mark.parametrize("text", ["", "00" * 31, "xy"])
def test_a_damaged_salt_is_said_to_be(text: str, tmp_path: Path) -> None:
    keys.create(tmp_path, "port-1")
    (tmp_path / "keys" / "evidence.salt").write_text(text)
    with pytest.raises(EvidenceError, match="damaged"):
        keys.load_secret(tmp_path)


def test_a_key_is_taken_as_text_or_from_a_file(tmp_path: Path) -> None:
    verifier = keys.create(tmp_path, "port-1").verifier
    (tmp_path / "log.pub").write_text(f"{verifier}\n")
    assert keys.parse_key(str(verifier)) == verifier == keys.parse_key(str(tmp_path / "log.pub"))
    for wrong, why in ((str(tmp_path / "none"), "No such file"), ("a+b+c", "no public key"), (str(verifier)[:-1] + "A", "id does not belong")):
        with pytest.raises(EvidenceError, match=why):
            keys.parse_key(wrong)
