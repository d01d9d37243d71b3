"""What the relay tells the witness, where there is one: each connection, and each message before it is written (`escrow.flows.notes`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from escrow.events import Connection
from escrow.flows.notes import Note, connection_of

NoteTaker = Callable[[Note], None]


def link(client: Any, server: Any) -> Connection | None:
    """The connection between two socket names; None where one is not known, since it is gone already."""
    return connection_of(_bare(client), _bare(server)) if client and server else None


def _bare(name: Any) -> tuple[str, int]:
    """Without the interface of a link-local address, which is not on the wire."""
    return str(name[0]).partition("%")[0], int(name[1])
