"""What the process of the taps tells whoever reads the rings: a closed list, over a socket of its own. Nobody tells it anything.

A tap is told of once, attached or absent; everything else as often as it changes. Texts are printable ASCII: names of processes, sockets and
files are chosen by whoever is watched, and are escaped before they are sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

MAX_BYTES = 64 << 10
"""Of a packet."""
MOST_DOORS = 64
MOST_VISITS = 128
MOST_SERVERS = 2048
MOST_NAMES = 128
MOST_UNCOVERED = 16
MOST_ADDRESSES = 512

Number = Annotated[int, Field(ge=0, lt=1 << 63)]
Pid = Annotated[int, Field(gt=0, lt=1 << 31)]
Text = Annotated[str, Field(max_length=512, pattern=r"^[\x20-\x7e]*$")]
Name = Annotated[str, Field(max_length=128, pattern=r"^[\x20-\x7e]*$")]
Source = Literal["tap", "tls"]
Loader = Literal["libbpf", "bcc"]


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose plaintext is copied; 0 and empty do not restrict. cgroup: id and depth below the root of cgroup2, with all below it."""

    pids: frozenset[int] = frozenset()
    cgroup: int = 0
    cgroup_level: int = 0


@dataclass(frozen=True, slots=True)
class TapPlan:
    """What is watched.

    ports: of the socket filter; none: no socket filter. scope: whose plaintext is copied; None: that of the processes that listen on `ports`.
    guards: other doors than `ports` are nobody's business but where those are guarded.
    """

    ports: frozenset[int]
    scope: Scope | None
    loader: Loader = "libbpf"
    guards: bool = True


class _Sight(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TapAttached(_Sight):
    """Two descriptors come with it: the ring's and the counters'. ring_bytes: the ring's size."""

    type: Literal["tap_attached"] = "tap_attached"
    source: Source
    ring_bytes: Annotated[int, Field(ge=4096, le=1 << 30)]


class TapAbsent(_Sight):
    """It could not be had; why, in our words."""

    type: Literal["tap_absent"] = "tap_absent"
    source: Source
    why: Text


class DoorSeen(_Sight):
    family: Literal["tcp", "unix"]
    inode: Number
    address: Name
    pid: Pid


class VisitSeen(_Sight):
    """key: what tells it from others. Negative numbers are hashes."""

    door: Number
    key: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
    peer: Name


class DoorsSeen(_Sight):
    """All doors of the server's processes, who is on them, and those processes. left_out: how many of any of these did not fit."""

    type: Literal["doors_seen"] = "doors_seen"
    doors: Annotated[tuple[DoorSeen, ...], Field(max_length=MOST_DOORS)]
    visits: Annotated[tuple[VisitSeen, ...], Field(max_length=MOST_VISITS)]
    servers: Annotated[tuple[Pid, ...], Field(max_length=MOST_SERVERS)]
    left_out: Number


class DoorsHidden(_Sight):
    """The doors cannot be watched for now; why, in our words."""

    type: Literal["doors_hidden"] = "doors_hidden"
    why: Text


class TargetsSeen(_Sight):
    """probed: files whose TLS is seen. uncovered: what of the watched processes' TLS is not. full: more files than are looked at.
    unprobed: watched processes that ran a file before its probes were there, since the start."""

    type: Literal["targets_seen"] = "targets_seen"
    probed: Number
    uncovered: Annotated[tuple[Text, ...], Field(max_length=MOST_UNCOVERED)]
    full: bool
    unprobed: Number


class Named(_Sight):
    """group: the last part of its cgroup's path, which is a container's or a unit's name."""

    pid: Pid
    name: Name
    group: Name


class NamesSeen(_Sight):
    """Who processes are, to people."""

    type: Literal["names_seen"] = "names_seen"
    names: Annotated[tuple[Named, ...], Field(max_length=MOST_NAMES)]


class AddressesSeen(_Sight):
    """The namespace's own addresses, as networks (RFC 4632, RFC 4291). None: too many to say, so any may be."""

    type: Literal["addresses_seen"] = "addresses_seen"
    networks: Annotated[tuple[Annotated[str, Field(max_length=43)], ...], Field(max_length=MOST_ADDRESSES)] | None


Sight = TapAttached | TapAbsent | AddressesSeen | DoorsSeen | DoorsHidden | TargetsSeen | NamesSeen
SIGHTS: TypeAdapter[Sight] = TypeAdapter(Annotated[Sight, Field(discriminator="type")])


def descriptors_of(sight: Sight) -> int:
    """How many come with it."""
    return 2 if isinstance(sight, TapAttached) else 0
