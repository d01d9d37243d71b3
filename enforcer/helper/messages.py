"""What daemon and helper can say to each other: a closed list, each with every field it may have. Facts in the past tense.

Both ends check what comes in against these types and nothing else; what does not fit ends the daemon, whichever end it came from.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

MAX_BYTES = 4096
"""Of a packet."""

Number = Annotated[int, Field(ge=0, lt=1 << 53)]
Text = Annotated[str, Field(max_length=512)]
ChildKind = Literal["worker", "window", "jury", "taps", "witness", "keeper"]
"""The processes beside the daemon: a scanner worker, the supervisor's window, the jury's member, the taps, the witness, the keeper of the twins."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Accepting(_Message):
    """daemon → helper: the gate accepts connections; steer them here."""

    type: Literal["accepting"] = "accepting"


class OpenUpstream(_Message):
    """daemon → helper: connect to the guarded port at `remote`, from `local`, both addresses of the guarded namespace.

    scope: interface index of a link-local address, else 0.
    """

    type: Literal["open_upstream"] = "open_upstream"
    id: Number
    local: Annotated[str, Field(max_length=45)]
    remote: Annotated[str, Field(max_length=45)]
    scope: Annotated[int, Field(ge=0, lt=1 << 31)] = 0


class ReadCounters(_Message):
    """daemon → helper: what has the steering program counted?"""

    type: Literal["read_counters"] = "read_counters"
    id: Number


class AskStop(_Message):
    """daemon → helper: an operator asked for the end of this instance."""

    type: Literal["ask_stop"] = "ask_stop"


class UpstreamOpened(_Message):
    """helper → daemon: the connection, as the packet's one descriptor."""

    type: Literal["upstream_opened"] = "upstream_opened"
    id: Number


class UpstreamFailed(_Message):
    """helper → daemon. busy: too many are being opened. denied: not an address of the namespace."""

    type: Literal["upstream_failed"] = "upstream_failed"
    id: Number
    kind: Literal["refused", "timeout", "denied", "busy"]
    text: Text


class CountersRead(_Message):
    """helper → daemon: see `steer.Counters`."""

    type: Literal["counters_read"] = "counters_read"
    id: Number
    steered: Number
    exempt: Number
    no_gate: Number
    failed_open: Number
    gate_port: Number
    unassignable: Number


class Enforcing(_Message):
    """helper → daemon: from now on, every new connection to the port comes here."""

    type: Literal["enforcing"] = "enforcing"


class NotEnforcing(_Message):
    """helper → daemon: connections may reach the server unseen, or do not come at all; why, in our words."""

    type: Literal["not_enforcing"] = "not_enforcing"
    why: Text


class ChildStarted(_Message):
    """helper → daemon: a child's socket (SOCK_STREAM; of the taps and the witness SOCK_SEQPACKET), as the packet's one descriptor. It may still be loading."""

    type: Literal["child_started"] = "child_started"
    child: ChildKind
    number: Number


class ChildEnded(_Message):
    """helper → daemon: that child is gone; another will come, with a number of its own."""

    type: Literal["child_ended"] = "child_ended"
    child: ChildKind
    number: Number


class Stop(_Message):
    """helper → daemon: end now, in an orderly way."""

    type: Literal["stop"] = "stop"


Request = Accepting | OpenUpstream | ReadCounters | AskStop
Answer = UpstreamOpened | UpstreamFailed | CountersRead
Fact = Enforcing | NotEnforcing | ChildStarted | ChildEnded | Stop

REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="type")])
FROM_HELPER: TypeAdapter[Answer | Fact] = TypeAdapter(Annotated[Answer | Fact, Field(discriminator="type")])

CARRIES_DESCRIPTOR = (UpstreamOpened, ChildStarted)
