"""The supervisor's window, wired: proposals go to the policies, audits to the log's checker, and a window that ends is started again."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from enforcer.control.supervising import AUDIT_S, Supervising
from enforcer.control.tokens import Tokens
from enforcer.control.window import WindowServer
from enforcer.custody import Custody
from enforcer.dialing import owner_of
from enforcer.evidence import EvidenceError, keys
from enforcer.evidence.files import folder_of
from enforcer.evidence.verify import verify
from enforcer.helper.window import LocalWindow
from enforcer.inherited import Inherited
from enforcer.policies import Policies
from escrow.supervisor.answers import AuditReport, Proposed


class Window:
    """status: the daemon's view of itself."""

    def __init__(self, given: Inherited, custody: Custody, policies: Policies, tokens: Tokens, status: Callable[[], dict[str, Any]]) -> None:
        self._place, self._tokens = given.window, tokens
        look_up = None if given.window_diag is None else owner_of(given.window_diag)
        self._server = WindowServer(Supervising(custody, status, _Proposals(policies), _Audit(given)), tokens, look_up, self._lost)
        self._local = LocalWindow(given.window_listeners, self.add) if given.window_listeners else None

    def start(self) -> None:
        """Where the daemon starts it itself; else its socket comes from the helper."""
        if self._local is not None:
            self._local.start()

    def add(self, window: socket.socket) -> None:
        self._server.add(window)

    def close(self) -> None:
        if self._local is not None:
            self._local.close()
        self._server.close()

    def status(self) -> dict[str, Any]:
        counts = self._server.counts.model_dump()
        return {"url": self._place.url, "why": self._place.why, "live": self._server.live, "tokens_problem": self._tokens.problem, **counts}

    def _lost(self) -> None:
        if self._local is not None:
            self._local.lost()


@dataclass(frozen=True, slots=True)
class _Proposals:
    policies: Policies

    async def __call__(self, toml: str, by: str, why: str, apply: bool) -> Proposed:
        proposal = self.policies.propose(toml, by, why, time.time())
        if not apply:
            return Proposed(id=proposal.id, status="waiting", version=proposal.version)
        changed = self.policies.accept(proposal.id, by, why, time.time(), against=proposal.against)
        return Proposed(id=proposal.id, status="applied", version=changed.version)


@dataclass(frozen=True, slots=True)
class _Audit:
    """Checks the log's files in a thread, which gives up after AUDIT_S."""

    given: Inherited

    async def __call__(self) -> AuditReport:
        return await asyncio.to_thread(self._check)

    def _check(self) -> AuditReport:
        began, at = time.monotonic(), time.time()

        def progress(_done: int, _total: int) -> None:
            if time.monotonic() - began > AUDIT_S:
                raise TimeoutError

        try:
            report = verify(folder_of(self.given.state_dir), keys.public_key(self.given.state_dir), progress=progress)
        except TimeoutError:
            return AuditReport(sound=False, checked_at=at, entries=0, signed=None, problem=f"it could not be checked within {AUDIT_S:g} s")
        except (EvidenceError, OSError) as error:
            return AuditReport(sound=False, checked_at=at, entries=0, signed=None, problem=f"it cannot be read ({type(error).__name__})")
        found = report.problem
        where = "" if found is None or found.entry is None else f"entry {found.entry}: "
        return AuditReport(
            sound=report.sound(allow_tail=True), checked_at=at, entries=report.size, signed=report.signed, problem=None if found is None else where + found.text
        )
