"""Salted commitments: what stands in the log in place of bytes.

Pure. A commitment is the SHA-256 of a 16-byte salt followed by the bytes, in hex. Who has the salt can check bytes against it;
who has not learns nothing, even about bytes that are easy to guess. Salts come in pairs, the halves of one HMAC-SHA-256 (RFC 2104):

* of an item in escrow, keyed with the item's own secret: destroyed with it, nobody can check any more;
* of everything else, keyed with the log's secret over the entry's number.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass


def commit(salt: bytes, data: bytes) -> str:
    """The commitment to these bytes, in hex."""
    digest = hashlib.sha256(salt)
    digest.update(data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Salts:
    """What the salts of one entry are made from. secret: the log's; seq: the entry's number."""

    secret: bytes
    seq: int

    def of(self, item: bytes | None, event: str) -> tuple[bytes, bytes]:
        """The salts of a message and of a call's arguments. item: the secret of the item in escrow, if it is one."""
        if item is None:
            pair = hmac.digest(self.secret, b"holdfast entry %d" % self.seq, "sha256")
        else:
            pair = hmac.digest(item, b"holdfast item " + event.encode(), "sha256")
        return pair[:16], pair[16:]
