"""What a twin's run did, as one typed list.

Pure data. Paths are the twin's own, absolute and normalised; texts that a server chose are bounded by whoever makes the value (`enforcer.sandbox`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Change(StrEnum):
    """What became of a file or folder."""

    CREATED = "created"
    CHANGED = "changed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Write:
    """A file, folder or link that is not as it was. mode: permission bits and type after the run (st_mode), None of what was deleted."""

    path: str
    change: Change
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Connect:
    """A connection that was attempted, or a datagram sent. address: an IP address or a Unix socket's path; port: None of the latter.

    name: the host name that the run had looked up for it, "" where none is known. inside: an address of the twin itself (its loopback, its own sockets).
    """

    address: str
    port: int | None
    name: str = ""
    inside: bool = False


@dataclass(frozen=True, slots=True)
class Execute:
    """A program that was started after the template's checkpoint. arguments: with the program's own name first."""

    path: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Effects:
    """All that a run did. incomplete: why this may not be all, in our words; empty where it is."""

    reads: tuple[str, ...] = ()
    writes: tuple[Write, ...] = ()
    connects: tuple[Connect, ...] = ()
    executes: tuple[Execute, ...] = ()
    incomplete: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return not self.incomplete


NO_EFFECTS = Effects()
