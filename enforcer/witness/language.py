"""What the witness's process tells the daemon: a closed list. Texts are printable ASCII, as those of the taps are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

MAX_BYTES = 128 << 10
"""Of a packet."""
MOST_COUNTERS = 32
MOST_DOORS = 64
MOST_UNCOVERED = 16
MOST_MESSAGE_BYTES = 1 << 20
"""Of a message that comes with an alarm. Of a longer one, size and digest are told."""
PIECE_BYTES = 48 << 10

Number = Annotated[int, Field(ge=0, lt=1 << 63)]
Text = Annotated[str, Field(max_length=1024, pattern=r"^[\x20-\x7e]*$")]
Key = Annotated[str, Field(max_length=64, pattern=r"^[\x20-\x7e]*$")]
Source = Literal["tap", "tls"]


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AlarmRaised(_Told):
    """An entry for the evidence log. message_bytes: the message's, which follow, in packets of `PIECE_BYTES` at most.

    bypassed: whether something certainly passed the gate by.
    """

    type: Literal["alarm_raised"] = "alarm_raised"
    certain: bool
    what: Text
    where: Text
    bypassed: bool
    message_bytes: Annotated[int, Field(ge=0, le=MOST_MESSAGE_BYTES)]


class RecordsSeen(_Told):
    """See `enforcer.taps.counters.Counts`."""

    total: Number
    duplicate: Number
    matched: Number
    captured: Number
    captured_bytes: Number
    lost: Annotated[dict[Key, tuple[Number, Number]], Field(max_length=MOST_COUNTERS)]


class DoorOpen(_Told):
    family: Literal["tcp", "unix"]
    address: Text
    pid: Number
    name: Text


class Witnessed(_Told):
    """What `holdfast status` shows; see `enforcer.watching.Watch.status`."""

    type: Literal["witnessed"] = "witnessed"
    taps: Annotated[dict[Source, Text], Field(max_length=2)]
    problem: Text
    counters: Annotated[dict[Key, Number], Field(max_length=MOST_COUNTERS)]
    records: Annotated[dict[Source, RecordsSeen], Field(max_length=2)]
    doors: Text
    open_doors: Annotated[tuple[DoorOpen, ...], Field(max_length=MOST_DOORS)]
    doors_left_out: Number
    tls_files_probed: Number
    not_covered: Annotated[tuple[Text, ...], Field(max_length=MOST_UNCOVERED)]
    bypassed: bool


Told = AlarmRaised | Witnessed
TOLD: TypeAdapter[Told] = TypeAdapter(Annotated[Told, Field(discriminator="type")])
