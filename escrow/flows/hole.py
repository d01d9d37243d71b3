"""What readers are given in place of bytes that nobody saw."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes that went past unread, or that cannot be trusted.

    size: how many; 0 where none are missing, but what was read may not be what the receiver got; None where it is not known.
    why: in our words.
    """

    size: int | None
    why: str


class End:
    """The stream's last byte was read."""


END = End()
Chunk = bytes | Hole | End

LOST = "bytes of the stream were lost"
NOT_CAPTURED = "bytes of the stream were not captured"
CONFLICT = "bytes were sent twice and differ"
UNCOMPARED = "bytes were sent twice, and the first ones are not kept any more"
CUT = "the stream ended before its last byte was seen"
AFTER_END = "bytes came after the stream's end"
FAR = "the sequence numbers leap"
UNCONFIRMED = "it is not known whether a call was carried out, or repeated"
ENDED = "the connection ended in the middle of it"
JOINED = "the stream was joined in its middle"
"""Why a hole is one; also what is told with an incomplete message."""
