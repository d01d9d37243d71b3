"""What the gate notes for the witness: which connections are its own, and what it sends on them. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

from escrow.events import Connection, Direction, Endpoint


@dataclass(frozen=True, slots=True)
class Accepted:
    """The gate accepted a client's connection. opaque: it speaks TLS on it, so that the socket filter reads nothing.

    before: it did so before this witness was there: what was released on it by then is not known."""

    connection: Connection
    opaque: bool = False
    before: bool = False


@dataclass(frozen=True, slots=True)
class Dialed:
    """The gate opened a connection to the server. To be noted before its first byte is sent. opaque, before: as above."""

    connection: Connection
    opaque: bool = False
    before: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """The gate sends a message: a whole body that is not empty, or an event's data. `digest` is `escrow.flows.digest.digest` of its bytes."""

    digest: bytes
    connection: Connection
    direction: Direction


@dataclass(frozen=True, slots=True)
class Closed:
    """The gate closed a connection, or it was closed."""

    connection: Connection


Note = Accepted | Dialed | Released | Closed


def connection_of(client: tuple[str, int], server: tuple[str, int]) -> Connection:
    """The connection between two addresses as sockets give them; IPv4-mapped ones as IPv4, as the taps write them."""
    return Connection(Endpoint(_plain(client[0]), client[1]), Endpoint(_plain(server[0]), server[1]))


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:") if "." in address else address
