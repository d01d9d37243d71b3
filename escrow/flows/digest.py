"""What a message is known by on both sides of the witness."""

from __future__ import annotations

import hashlib


def digest(raw: bytes) -> bytes:
    """SHA-256 of a body or an event's data, line ends as LF.

    An event cannot carry a CR, so that a message goes out with other line ends than it came with. In JSON they stand between tokens only.
    """
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return hashlib.sha256(raw).digest()
