"""The targets under hypothesis: their good inputs, the same with words and bytes of their language pushed in, cut out and doubled, and mere noise."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.corpus import SEEDS, WORDS
from tests.fuzz.targets import TARGETS

EXAMPLES = 3000 if os.environ.get("HOLDFAST_FULL") == "1" else 120


def _changed(name: str) -> st.SearchStrategy[bytes]:
    """Up to six edits of a good input."""
    piece = st.sampled_from(WORDS[name]) | st.binary(max_size=4)
    edit = st.tuples(st.integers(0, 4096), st.integers(0, 12), piece)

    def change(seed: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
        for at, gone, new in edits:
            at %= len(seed) + 1
            seed = seed[:at] + new + seed[at + gone :]
        return seed

    return st.builds(change, st.sampled_from(SEEDS[name]), st.lists(edit, max_size=6))


def _made(name: str) -> st.SearchStrategy[bytes]:
    """Words of the language in any order."""
    return st.lists(st.sampled_from(WORDS[name]) | st.binary(max_size=4), max_size=24).map(b"".join)


def test_every_target_has_seeds_and_words() -> None:
    assert TARGETS.keys() == SEEDS.keys() == WORDS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_a_good_input_is_taken_at_every_cut(name: str) -> None:
    for seed in SEEDS[name]:
        for first in range(0, 256, 5):
            TARGETS[name](bytes([first]) + seed[1:] if name.startswith(("http", "sse")) else seed)


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_break_a_promise(name: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(_changed(name) | _made(name) | st.binary(max_size=400))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()
