"""What the taps saw, as facts: bytes of a TCP stream, plaintext of a TLS object, which of the two belong together, and what was lost.

This file owns the types that the kernel's records are decoded into (enforcer/taps/decode.py) and that flows are built from
(escrow/flows/). Pure data: complete once built, no clock, no loop.

    TcpSlice, TcpGap             the socket filter, on the guarded ports
    TlsOpened, TlsSlice, TlsClosed    the uprobes, on one TLS object
    Linked, Unlinked             the linker: which TLS object speaks on which connection
    ProcessStarted, ProcessEnded  who could be behind an event
    Lost                         what no event exists for; silence is never evidence

Order. Events of one ring come in the order they were recorded on one CPU; two CPUs may swap neighbours, and two slices of one TLS
call never swap. TCP slices come as the wire carried them: out of order, retransmitted, overlapping, and one packet that crosses
two interfaces of the namespace comes twice with the same sequence. `Linked` may come after the first `TlsSlice`s of its object.

Times are nanoseconds of CLOCK_MONOTONIC. Addresses are text as `ipaddress` writes it (an IPv4-mapped IPv6 address as IPv4).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntFlag


class Direction(Enum):
    """Which way bytes of a connection went. The server is the end that has the guarded port."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Connection:
    """One TCP connection by its 4-tuple. The same tuple is used again after a close: a SYN to the server begins another one."""

    client: Endpoint
    server: Endpoint


class TcpFlags(IntFlag):
    """Those of a segment that begin or end a stream (RFC 9293, 3.1)."""

    NONE = 0
    FIN = 1
    SYN = 2
    RST = 4


@dataclass(frozen=True, slots=True)
class TcpSlice:
    """At most 16 KiB of one TCP segment's payload. A segment of 64 KiB is several slices, each with its own sequence.

    sequence: of the first byte of `data`, modulo 2**32. With SYN it is the initial sequence number, and bytes start one later.
    data: may be empty when flags are not, or when nothing was captured.
    missing: bytes of the segment after `data` that were not captured (the capture limit); the next slice does not hold them.
    flags: SYN is on a segment's first slice, FIN and RST on its last. FIN stands at sequence + len(data) + missing.
    interface: index of the interface in its namespace.
    """

    connection: Connection
    direction: Direction
    time_ns: int
    sequence: int
    data: bytes
    missing: int
    flags: TcpFlags
    interface: int


@dataclass(frozen=True, slots=True)
class TcpGap:
    """From `sequence` on, an unknown number of bytes of this stream went past unread.

    reason: `fragment` (IP fragments are not put together) or `unreadable` (the packet's bytes could not be copied).
    """

    connection: Connection
    direction: Direction
    time_ns: int
    sequence: int
    reason: str


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the machine, for good: numbers are used again, pairs of number and start are not.

    pid: in the initial pid namespace. start_ns: since boot (CLOCK_BOOTTIME), of the thread group's leader; 0 where the kernel could not
    be asked. cgroup: id of its cgroup2. netns: inode of its network namespace; 0 likewise. It may change both, and stays the same process.
    """

    pid: int
    start_ns: int
    cgroup: int = field(compare=False)
    netns: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class TlsObject:
    """One SSL object of a process while it lives. A pointer that is used again after SSL_free is another object: `number` differs.

    number: with process and pointer unique; grows with time.
    """

    process: Process
    pointer: int
    number: int


class TlsDirection(Enum):
    """As the process that holds the object sees it."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class TlsOpened:
    """A TLS object was first seen.

    from_start: its SSL_new was seen, so no plaintext came before. False: it is older than the probes, and bytes may have gone past.
    """

    object: TlsObject
    time_ns: int
    from_start: bool


@dataclass(frozen=True, slots=True)
class TlsSlice:
    """At most 16 KiB of one call's plaintext.

    sequence: number of the call among the object's calls of this direction that carried bytes: 0, 1, 2, … A number left out is a
        call that was lost. Slices of one call share it.
    offset: of `data` in the call's bytes. total: bytes of the whole call. The call is whole when its slices cover 0 … total.
    missing: bytes after `data` that were not captured and that no other slice holds.
    thread: id of the thread that called.
    confirmed: the call is known to have taken exactly these bytes. False where only its entry could be watched: it may have failed, and
        be repeated as another call.
    """

    object: TlsObject
    direction: TlsDirection
    time_ns: int
    thread: int
    sequence: int
    offset: int
    total: int
    data: bytes
    missing: int
    confirmed: bool


class TlsEnd(Enum):
    SHUTDOWN = "shutdown"
    FREED = "freed"
    PROCESS_ENDED = "process ended"


@dataclass(frozen=True, slots=True)
class TlsClosed:
    """The object will carry no more (FREED, PROCESS_ENDED), or its process said that it will send no more (SHUTDOWN: reads may follow)."""

    object: TlsObject
    time_ns: int
    how: TlsEnd


@dataclass(frozen=True, slots=True)
class Linked:
    """The object speaks on this connection, by evidence that agrees. `by`: what the evidence was, for people.

    serves: whether the object's process is the server's end, so that READ is TO_SERVER and WRITE is TO_CLIENT; else the other way.
    """

    object: TlsObject
    connection: Connection
    serves: bool
    time_ns: int
    by: str


@dataclass(frozen=True, slots=True)
class Unlinked:
    """It is not known on which connection the object speaks, and will not be: whatever it carries is UNSURE where that matters.

    why: in our words: evidence that disagrees, or none before the object ended. Comes at most once, and also after a `Linked` that later
    evidence contradicts.
    """

    object: TlsObject
    time_ns: int
    why: str


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """A process executed a program. Who it is to people is asked of /proc by whoever may."""

    process: Process
    time_ns: int


@dataclass(frozen=True, slots=True)
class ProcessEnded:
    process: Process
    time_ns: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Records that were to be made and were not, since the last such event; counted where it happened.

    source: `tap` or `tls`. reason: see `LOST`. records, payload_bytes: how many, and how many bytes of payload they would have carried
    (0 where it is not known). Which stream they belong to shows there as a hole; a stream's tail that was lost shows only here, so every
    stream open at the time is UNSURE.
    """

    source: str
    time_ns: int
    reason: str
    records: int
    payload_bytes: int


LOST = {
    "ring full": "the ring buffer had no room: the reader was too slow",
    "unreadable": "the bytes could not be copied out of the packet or the process",
    "fragment": "an IP fragment, which may hold bytes of a guarded port",
    "headers": "headers of a packet that could not be followed to its ports",
    "too long": "one call carried more bytes than are copied of one",
    "no state": "more calls or objects were open at once than are kept track of",
    "unprobed": "a library's or program's calls before its probes were attached",
}
"""Every reason a `Lost` can have, and what it means."""

Event = TcpSlice | TcpGap | TlsOpened | TlsSlice | TlsClosed | Linked | Unlinked | ProcessStarted | ProcessEnded | Lost
