"""`python -m tests.fuzz NAME [seconds]`: one target under atheris, coverage-guided, from the corpus. Ends with the time, or at the first broken promise."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

with atheris.instrument_imports(include=["escrow", "enforcer"]):
    from tests.fuzz.corpus import SEEDS, WORDS
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit("usage: python -m tests.fuzz NAME [seconds]; NAME is one of: " + " ".join(TARGETS))
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(SEEDS[name]):
            (corpus / str(number)).write_bytes(seed)
        words = Path(folder) / "words"
        words.write_text("".join(_word(word) for word in WORDS[name] if len(word) <= 128))
        options = [str(corpus), f"-dict={words}", f"-max_total_time={seconds}", "-max_len=8192", "-timeout=10", f"-artifact_prefix={folder}/"]
        atheris.Setup([sys.argv[0], *options], TARGETS[name])
        atheris.Fuzz()


def _word(word: bytes) -> str:
    """A line of a libFuzzer dictionary."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


if __name__ == "__main__":
    main()
