"""Salted commitments: what stands in the log in place of bytes.

Pure. A commitment is the SHA-256 of a 16-byte salt followed by the bytes, in hex. Who has the salt can check bytes against it;
who has not learns nothing, even about bytes that are easy to guess. Salts come in pairs, the halves of one keyed BLAKE2b of 32 bytes (RFC 7693;
it takes a third of the time of an HMAC, and there is one for every message):

* of an item in escrow, keyed with the item's own secret: destroyed with it, nobody can check any more;
* of everything else, keyed with the log's secret over the entry's number.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

_sha256 = hashlib.sha256


def commit(salt: bytes, data: bytes) -> str:
    """The commitment to these bytes, in hex."""
    if len(data) <= 4096:
        return _sha256(salt + data).hexdigest()
    digest = _sha256(salt)  # a large message is not copied
    digest.update(data)
    return digest.hexdigest()


@lru_cache(4)
def _keyed(secret: bytes) -> hashlib.blake2b:
    """The part of every entry's salts that is the same: the key, and the words before the number."""
    return hashlib.blake2b(b"holdfast entry ", key=secret, digest_size=32)


def entry_salts(secret: bytes, seq: int) -> tuple[bytes, bytes]:
    """The salts of what has no item, by the entry's number. See `Salts`."""
    state = _keyed(secret).copy()
    state.update(b"%d" % seq)
    pair = state.digest()
    return pair[:16], pair[16:]


def item_salts(item: bytes, event: str) -> tuple[bytes, bytes]:
    """The salts of an item, by its secret. See `Salts`. Raises ValueError where that is too short to hide anything."""
    if len(item) < 16:
        raise ValueError("an item's salt has at least 16 bytes")
    pair = hashlib.blake2b(b"holdfast item " + event.encode(), key=item, digest_size=32).digest()
    return pair[:16], pair[16:]


@dataclass(frozen=True, slots=True)
class Salts:
    """What the salts of one entry are made from. secret: the log's, at most 64 bytes; seq: the entry's number."""

    secret: bytes
    seq: int

    def of(self, item: bytes | None, event: str) -> tuple[bytes, bytes]:
        """The salts of a message and of a call's arguments. item: the secret of the item in escrow, if it is one, 16 to 64 bytes.

        Raises ValueError where that secret is too short to hide anything.
        """
        return entry_salts(self.secret, self.seq) if item is None else item_salts(item, event)
