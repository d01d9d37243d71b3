"""Proofs that an entry is in the log, checked by a script that knows nothing of Holdfast."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from enforcer.evidence import EvidenceError, keys, proof
from enforcer.evidence.files import folder_of
from tests.enforcer.evidence.logs import event, notes, one_segment, opened, written

CHECKER = Path(__file__).with_name("check_proof.py")
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "evidence.md"


def check(state: Path, text: str, to: Path) -> subprocess.CompletedProcess[str]:
    to.write_text(text, "utf-8")
    return subprocess.run([sys.executable, "-I", CHECKER, str(keys.public_key(state)), to], capture_output=True, text=True, timeout=20)


def test_the_document_shows_the_very_script_and_it_is_short_and_needs_nothing_of_ours() -> None:
    script = CHECKER.read_text("utf-8")
    assert f"```python\n{script}```" in DOCUMENT.read_text("utf-8")
    assert "holdfast import" not in script and "enforcer" not in script and "escrow" not in script
    assert len([line for line in script.splitlines() if line.strip()]) <= 40


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_entry_is_proven_to_somebody_without_holdfast(size: int, tmp_path: Path) -> None:
    written(tmp_path, size, segment_bytes=400)
    for index in range(size):
        done = check(tmp_path, proof.prove(folder_of(tmp_path), index, keys.public_key(tmp_path)), tmp_path / "proof")
        assert done.returncode == 0, done.stderr
        assert f'"seq":{index},' in done.stdout or f'"seq":{index},"why":"event {index}"' in done.stdout


def test_a_proof_of_another_entry_is_refused_by_that_script(tmp_path: Path) -> None:
    written(tmp_path, 7)
    key = keys.public_key(tmp_path)
    text = proof.prove(folder_of(tmp_path), 3, key)
    extra = base64.b64decode(text.splitlines()[1].removeprefix("extra "))
    forged = [
        text.replace(base64.b64encode(extra).decode(), base64.b64encode(extra.replace(b"event 3", b"event 9")).decode()),
        text.replace("index 3\n", "index 2\n"),
        text.replace("index 3\n", "index 7\n"),
        text.replace("\n7\n", "\n8\n"),
        text.replace(f"\u2014 {key.name} ", f"\u2014 {key.name} AAAA"),
    ]
    lines = text.splitlines(keepends=True)
    forged += ["".join(lines[:3] + lines[4:]), "".join([*lines[:3], lines[4], lines[3], *lines[5:]])]
    for one in forged:
        assert one != text
        assert check(tmp_path, one, tmp_path / "proof").returncode == 1


def test_the_checkpoint_in_a_proof_is_the_last_one(tmp_path: Path) -> None:
    published = written(tmp_path, 3, 2)
    assert proof.prove(folder_of(tmp_path), 0, keys.public_key(tmp_path)).endswith("\n\n" + published[-1])
    assert notes(tmp_path, published)[-1].checkpoint.size == 5


def test_an_entry_that_is_not_signed_yet_has_no_proof(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.record(event(0))
    with pytest.raises(EvidenceError, match="there is no proof of entry 0 yet"):
        proof.prove(folder_of(tmp_path), 0, keys.public_key(tmp_path))
    log.close()
    assert proof.prove(folder_of(tmp_path), 0, keys.public_key(tmp_path))


def test_nothing_is_proven_with_a_log_that_is_not_sound(tmp_path: Path) -> None:
    written(tmp_path / "a", 5)
    written(tmp_path / "b", 5)
    one_segment(tmp_path / "a").write_bytes(one_segment(tmp_path / "b").read_bytes())
    for index in range(5):
        with pytest.raises(EvidenceError, match="not what its last checkpoint signed"):
            proof.prove(folder_of(tmp_path / "a"), index, keys.public_key(tmp_path / "a"))
    with pytest.raises(EvidenceError, match="not signed by its key"):
        proof.prove(folder_of(tmp_path / "a"), 0, keys.public_key(tmp_path / "b"))
