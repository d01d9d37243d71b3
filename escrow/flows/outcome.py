"""What the witness finds. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from escrow.flows.unit import Unit


class Why(Enum):
    """Of a bypass: NOT_RELEASED, UNKNOWN_CONNECTION, OPAQUE. Of what is unsure: the rest."""

    NOT_RELEASED = "a message was seen that the gate did not release"
    UNKNOWN_CONNECTION = "bytes were seen on a connection that the gate did not make or accept"
    OPAQUE = "TLS was seen on a connection on which the gate speaks plainly"
    INCOMPLETE = "a message was not seen whole"
    UNLINKED = "it is not known on which connection a TLS object of the server speaks"
    LOST = "records of the taps were lost"
    FORGOTTEN = "not all that was released on a connection is remembered"


@dataclass(frozen=True, slots=True)
class Bypass:
    """Something passed the gate by. unit: what was seen, for the first of its connection's where the connection itself is the bypass."""

    why: Why
    unit: Unit
    digest: bytes


@dataclass(frozen=True, slots=True)
class Unsure:
    """It cannot be told whether something passed the gate by. text: more, in our words; records: how many, where they were lost."""

    why: Why
    unit: Unit | None
    text: str = ""
    records: int = 0


Outcome = Bypass | Unsure
