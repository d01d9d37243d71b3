"""What every connection and every exchange of the relay shares."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from enforcer.custody import Custody
from enforcer.relay.identity import Identity
from enforcer.relay.noting import NoteTaker
from enforcer.relay.responder import Responder
from enforcer.relay.sessions import Sessions
from enforcer.relay.upstream import Upstream
from escrow.http.wire import Heads
from escrow.policy import Policy
from escrow.shape import Shapes


@dataclass(slots=True)
class Context:
    """See the module. heads: those of clients' requests. shapes: of messages, whoever's. note: the witness's; None where there is none."""

    policy: Policy
    server: str
    custody: Custody
    upstream: Upstream
    sessions: Sessions
    identity: Identity
    responder: Responder
    heads: Heads = field(default_factory=Heads)
    shapes: Shapes = field(default_factory=Shapes)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    stopping: bool = False
    """What is held stays held: nobody is said to have left."""
    note: NoteTaker | None = None

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that takes its time; it is cancelled when the relay stops."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task
