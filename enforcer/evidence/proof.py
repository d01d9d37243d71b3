"""Inclusion proofs that need nothing of Holdfast's to be checked, in the form of C2SP tlog-proof; the entry itself is their `extra` line.

c2sp.org/tlog-proof@v1
extra <base64 of the entry's canonical JSON>
index <its number>
<base64 of a hash>           the audit path (RFC 6962, section 2.1.1), from the leaf's sibling up
⋮

<checkpoint>
"""

from __future__ import annotations

import base64
from pathlib import Path

from enforcer.evidence import keys, reading
from enforcer.evidence.errors import EvidenceError
from escrow.evidence.note import Verifier
from escrow.evidence.tree import Frontier, audit_path, root_from_path

SUFFIX = ".tlog-proof"


def prove(folder: Path, index: int, verifier: Verifier) -> str:
    """Prove that an entry is in the log its last checkpoint signed, by one walk over the entries.

    Raises EvidenceError: no such entry, not signed yet, or a log that is not sound. Raises OSError.
    """
    signed = reading.last_checkpoint(folder)
    if signed is None or not keys.holds(signed, verifier):
        raise EvidenceError("the log's last checkpoint is not signed by its key" if signed else "the log has no checkpoint yet")
    size = signed.checkpoint.size
    if index >= size:
        raise EvidenceError(f"the last checkpoint covers {size} entries, the last of them {size - 1}: there is no proof of entry {index} yet")
    ranges = audit_path(index, size)
    roots: dict[tuple[int, int], bytes] = {}
    pending = sorted(ranges)
    subtree, at, proven, leaf = Frontier(), 0, b"", b""
    for at, (hashed, entry) in enumerate(reading.entries(folder)):
        if at == index:
            proven, leaf = entry, hashed
        elif pending and pending[0][0] <= at:
            subtree.append(hashed)
            if at + 1 == pending[0][1]:
                roots[pending.pop(0)] = subtree.root()
                subtree = Frontier()
        if at + 1 == size:
            break
    path = [roots[one] for one in ranges if one in roots]
    if len(path) != len(ranges) or not proven or root_from_path(leaf, index, size, path) != signed.checkpoint.root:
        raise EvidenceError("the log is not what its last checkpoint signed: nothing can be proven with it; see `holdfast audit verify`")
    extra = base64.b64encode(proven).decode()
    hashes = "".join(f"{base64.b64encode(one).decode()}\n" for one in path)
    return f"c2sp.org/tlog-proof@v1\nextra {extra}\nindex {index}\n{hashes}\n{signed}"
