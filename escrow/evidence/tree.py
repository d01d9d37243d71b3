"""The Merkle tree of RFC 6962, section 2.1, over SHA-256.

Pure. A log of n entries needs log2(n) hashes to go on (`Frontier`), so nothing here grows with it. Written here rather than taken from
a package: pymerkle, the one on PyPI that is still released, wants every leaf in a storage of its own to walk over, gives proofs in a form of
its own, and pins a cache library to one exact version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

_sha256 = hashlib.sha256
EMPTY = _sha256(b"").digest()
"""MTH({}), the root of an empty tree."""


def leaf_hash(entry: bytes) -> bytes:
    """MTH({d(0)}) = SHA-256(0x00 || d(0))."""
    return _sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return _sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree's right edge: the roots of the perfect subtrees it is made of, largest first. Enough to append and to give the root.

    Raises ValueError where `nodes` are not as many as a tree of that size has.
    """

    __slots__ = ("nodes", "size")

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.nodes = list(nodes)
        if len(self.nodes) != size.bit_count():
            raise ValueError(f"a tree of {size} entries has {size.bit_count()} perfect subtrees, not {len(self.nodes)}")

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        nodes = self.nodes
        size = self.size
        while size & 1:  # a subtree as large as the one in hand is complete: join them
            leaf = _sha256(b"\x01" + nodes.pop() + leaf).digest()
            size >>= 1
        nodes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """MTH(D[n])."""
        if not self.nodes:
            return EMPTY
        root = self.nodes[-1]
        for node in self.nodes[-2::-1]:
            root = node_hash(node, root)
        return root

    def copy(self) -> Frontier:
        return Frontier(self.size, self.nodes)


def audit_path(index: int, size: int) -> list[tuple[int, int]]:
    """The subtrees whose roots are PATH(index, D[size]) (section 2.1.1), from the leaf's sibling up, as half-open ranges of entries."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} entries has no entry {index}")
    low, high, path = 0, size, list[tuple[int, int]]()
    while high - low > 1:
        split = low + (1 << (high - low - 1).bit_length() - 1)  # k, the largest power of two smaller than n
        if index < split:
            path.append((split, high))
            high = split
        else:
            path.append((low, split))
            low = split
    path.reverse()
    return path


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to (RFC 9162, section 2.1.3.2). Raises ValueError where the path has not the length it must have."""
    ranges = audit_path(index, size)
    if len(ranges) != len(path):
        raise ValueError("the proof has the wrong length")
    for (low, _), sibling in zip(ranges, path, strict=True):
        leaf = node_hash(leaf, sibling) if low > index else node_hash(sibling, leaf)
    return leaf
