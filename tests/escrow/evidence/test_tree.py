"""The tree against the vectors of the Certificate Transparency reference implementation, and against the definition itself."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.evidence.tree import EMPTY, Frontier, audit_path, leaf_hash, node_hash, root_from_path

LEAVES = [bytes.fromhex(one) for one in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    # (index, size): the audit path, as in the reference implementation's tests
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def mth(leaves: list[bytes]) -> bytes:
    """MTH as RFC 6962, section 2.1 defines it, by recursion."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(mth(leaves[:split]), mth(leaves[split:]))


def grown(leaves: list[bytes]) -> Frontier:
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf_hash(leaf))
    return tree


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert Frontier().root() == EMPTY == bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


@pytest.mark.parametrize("size", range(1, 9))
def test_the_roots_are_the_reference_implementations(size: int) -> None:
    assert grown(LEAVES[:size]).root().hex() == ROOTS[size - 1]


@pytest.mark.parametrize("index, size", PATHS)
def test_the_audit_paths_are_the_reference_implementations(index: int, size: int) -> None:
    found = [mth(LEAVES[low:high]).hex() for low, high in audit_path(index, size)]
    assert found == PATHS[index, size]
    assert root_from_path(leaf_hash(LEAVES[index]), index, size, [bytes.fromhex(one) for one in found]).hex() == ROOTS[size - 1]


@given(st.lists(st.binary(max_size=3), max_size=70))
def test_a_growing_tree_has_the_root_of_the_definition(leaves: list[bytes]) -> None:
    tree = grown(leaves)
    assert tree.root() == mth(leaves)
    assert Frontier(tree.size, tree.nodes).root() == tree.root()


@given(st.integers(1, 200), st.data())
def test_every_entry_is_proven_by_its_path_and_no_other_entry_is(size: int, data: st.DataObject) -> None:
    leaves = [b"%d" % number for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    path = [mth(leaves[low:high]) for low, high in audit_path(index, size)]
    assert root_from_path(leaf_hash(leaves[index]), index, size, path) == mth(leaves)
    assert root_from_path(leaf_hash(b"another"), index, size, path) != mth(leaves)
    with pytest.raises(ValueError, match="wrong length"):
        root_from_path(leaf_hash(leaves[index]), index, size, [*path, EMPTY])


@pytest.mark.parametrize("index, size", [(0, 0), (3, 3), (-1, 3)])
def test_there_is_no_path_to_what_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no entry"):
        audit_path(index, size)


def test_an_edge_with_too_few_hashes_is_no_tree() -> None:
    with pytest.raises(ValueError, match="2 perfect subtrees, not 1"):
        Frontier(3, [EMPTY])


def test_a_copy_does_not_follow_the_original() -> None:
    tree = grown(LEAVES[:3])
    copy = tree.copy()
    tree.append(leaf_hash(b"x"))
    assert copy.root().hex() == ROOTS[2]
