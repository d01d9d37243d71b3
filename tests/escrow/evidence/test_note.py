"""Checkpoints and keys in the form others write them too."""

from __future__ import annotations

import base64
import json
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from escrow.evidence.note import Checkpoint, NoteError, Signed, Verifier, find_notes, origin_for

# The documentation of golang.org/x/mod/sumdb/note, and that database's own key.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERS_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETERS_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
SUMDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
# C2SP tlog-checkpoint's own example.
EXAMPLE = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""


@pytest.mark.parametrize("key", [PETER, SUMDB])
def test_keys_of_the_go_checksum_database_are_read_and_written(key: str) -> None:
    assert str(Verifier.parse(key)) == key


def test_a_signature_of_the_go_note_package_verifies_under_its_key_and_id() -> None:
    signature = base64.b64decode(PETERS_SIGNATURE)
    verifier = Verifier.parse(PETER)
    assert signature[:4] == verifier.key_id
    Ed25519PublicKey.from_public_bytes(verifier.public).verify(signature[4:], PETERS_TEXT.encode())


@pytest.mark.parametrize(
    "key, why",
    [
        (PETER.replace("c74f20a3", "c74f20a4"), "id does not belong"),
        (PETER.replace("PeterNeumann", "Peter Neumann"), "no public key"),
        (PETER.replace("ARpc", "AxpC"), "no Ed25519 key"),
        (PETER[:-4], "no public key"),
        ("", "no public key"),
        ("a+b+é", "no public key"),
    ],
)
def test_a_key_with_a_wrong_character_is_refused(key: str, why: str) -> None:
    with pytest.raises(NoteError, match=why):
        Verifier.parse(key)


def test_the_example_of_the_specification_is_read_and_written() -> None:
    signed = Signed.parse(EXAMPLE)
    assert (signed.checkpoint.origin, signed.checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert str(signed) == EXAMPLE and signed.checkpoint.text + "\n" + EXAMPLE.splitlines()[-1] + "\n" == EXAMPLE


@given(st.integers(0, 2**53), st.binary(min_size=32, max_size=32), st.binary(min_size=68, max_size=68))
def test_what_is_written_is_read_again(size: int, root: bytes, signature: bytes) -> None:
    signed = Signed(Checkpoint("holdfast/port-1/00ff", size, root), signature[:4], signature[4:])
    assert Signed.parse(str(signed)) == signed


def test_no_single_changed_bit_is_read_as_the_same_checkpoint() -> None:
    data, signed = EXAMPLE.encode(), Signed.parse(EXAMPLE)
    for at in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        with suppress(NoteError, UnicodeDecodeError):
            assert Signed.parse(flipped.decode()) != signed


@pytest.mark.parametrize(
    "text",
    [
        EXAMPLE.replace("20852163", "020852163"),
        EXAMPLE.replace("20852163", "-1"),
        EXAMPLE.replace("20852163", "٣"),
        EXAMPLE.replace("q2I=", "q2J="),  # another spelling of the same root
        EXAMPLE.replace("\n\n", "\nextension\n\n"),
        EXAMPLE.replace("— example", "- example"),
        EXAMPLE.replace("\n", "\r\n"),
        EXAMPLE[:-1],
        EXAMPLE + "\n",
        EXAMPLE.replace("— example.com/behind-the-sofa ", "— example.com/another "),
    ],
)
def test_anything_but_the_one_form_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        Signed.parse(text)


def test_checkpoints_are_found_among_a_journals_lines() -> None:
    journal = f"ready\nexample.com/behind-the-sofa\nnot a note\n{EXAMPLE}enforcing\n\n{EXAMPLE.replace('20852163', '20852164')}— witness.example AAAA\nbye"
    assert [signed.checkpoint.size for signed in find_notes(journal, "example.com/behind-the-sofa")] == [20852163, 20852164]
    assert find_notes(journal, "example.com/another") == []


def test_checkpoints_are_found_in_the_lines_that_the_daemon_writes() -> None:
    said = [json.dumps({"event": "checkpoint", "checkpoint": EXAMPLE.replace("20852163", size)}) for size in ("1", "2", "3")]
    journal = f'{said[0]}\n{{"event": "ready"}}\nNov 23 12:00:00 host holdfast[41]: {said[1]}\n{said[2]}\n"checkpoint"\n{{"checkpoint": 1}}\n{{"checkpoint"'
    assert [signed.checkpoint.size for signed in find_notes(journal, "example.com/behind-the-sofa")] == [1, 2, 3]


def test_a_checkpoint_found_without_its_logs_signature_is_an_error() -> None:
    with pytest.raises(NoteError, match="no signature by its log"):
        find_notes(EXAMPLE.replace("— example.com/behind-the-sofa", "— witness.example"), "example.com/behind-the-sofa")


@pytest.mark.parametrize(
    "server, origin",
    [("port-8931", "holdfast/port-8931/0a"), ("[::1]:80", "holdfast/_::1_:80/0a"), ("a b+c\né", "holdfast/a_b_c__/0a"), ("", "holdfast/_/0a")],
)
def test_an_origin_is_always_a_name_that_a_key_may_have(server: str, origin: str) -> None:
    assert origin_for(server, "0a") == origin
    assert Verifier.parse(str(Verifier(origin, bytes(32)))).name == origin
