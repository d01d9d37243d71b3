"""Sessions of the first two eras: whose they are, which calls are open in them, where their answers go."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from escrow.call import Call
from escrow.principal import Principal

if TYPE_CHECKING:
    from enforcer.custody import Ticket
    from enforcer.relay.stream import ClientStream

_MOST_CALLS = 4096
_MOST_SESSIONS = 10_000


def public(session_id: str) -> str:
    """How a session is called in items and logs: the id itself is a credential."""
    return "s-" + hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(slots=True)
class Session:
    """name: the public one. stream: the client's open stream of an HTTP+SSE session. waiting: who waits at a held answer, by call id.

    peer: who was at the other end when it began, whatever credential came with it.
    """

    name: str
    principal: Principal
    peer: Principal
    calls: OrderedDict[int | str, tuple[Call, float]] = field(default_factory=OrderedDict)
    stream: ClientStream | None = None
    waiting: dict[int | str, Ticket] = field(default_factory=dict)

    def belongs_to(self, own: Principal, peer: Callable[[], Principal]) -> bool:
        """Whether a request may speak in it: whose it is, or the same peer with a new credential, since tokens are refreshed in mid-session."""
        return own == self.principal or (own.kind == self.principal.kind == "auth" and peer() == self.peer)

    def asked(self, call: Call) -> None:
        self.calls[call.id] = (call, time.monotonic())
        while len(self.calls) > _MOST_CALLS:
            self.calls.popitem(last=False)

    def pair(self, answer_id: int | str | None) -> tuple[Call, float] | None:
        """The call that an answer with this id belongs to. `1` is not `"1"` (and True is no id)."""
        return None if answer_id is None else self.calls.get(answer_id)


class Sessions:
    """By "id:" and session id, or "sse:" and HTTP+SSE endpoint; the least recently used go first."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, Session] = OrderedDict()

    def get(self, key: str) -> Session | None:
        session = self._all.get(key)
        if session is not None:
            self._all.move_to_end(key)
        return session

    def start(self, key: str, principal: Principal, peer: Callable[[], Principal]) -> Session:
        """The session, its principal fixed now if it is new."""
        session = self.get(key)
        if session is None:
            session = self._all[key] = Session(public(key), principal, peer())
            while len(self._all) > _MOST_SESSIONS:
                self._all.popitem(last=False)
        return session

    def end(self, key: str) -> None:
        self._all.pop(key, None)

    def keys_of(self, session: Session | None) -> list[str]:
        """Under which ids and endpoints a session is known."""
        return [key for key, value in self._all.items() if value is session]

    def id_of(self, session: Session | None) -> str | None:
        """The `Mcp-Session-Id` of a session; None where it has none."""
        return next((key[3:] for key in self.keys_of(session) if key.startswith("id:")), None)
