"""What each tool of a supervising agent does. Who asks is known here, and what its token may do has been checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel

from enforcer.control import views
from enforcer.control.own import Caller, why_own
from enforcer.custody import Custody
from escrow.gate import DecisionRefused
from escrow.item import Item
from escrow.supervisor import answers, arguments
from escrow.supervisor.scopes import Scope
from escrow.supervisor.wire import Refusal

AUDIT_S = 120.0
AUDIT_AGAIN_S = 5.0


class Proposals(Protocol):
    """Where proposals of changes go; `enforcer.policies.Policies`, adapted by the daemon."""

    async def __call__(self, toml: str, by: str, why: str, apply: bool) -> answers.Proposed:
        """Raises ValueError: it cannot be proposed; the text says why."""


@dataclass(slots=True)
class Supervising:
    """status: the daemon's view of itself. propose, audit: None where there is none."""

    custody: Custody
    status: Callable[[], dict[str, Any]]
    propose: Proposals | None = None
    audit: Callable[[], Awaitable[answers.AuditReport]] | None = None
    _auditing: asyncio.Task[answers.AuditReport] | None = field(default=None, init=False)

    async def answer(self, asked: BaseModel, tool: str, caller: Caller, window: answers.WindowCounts) -> BaseModel | Refusal:
        """Raises KeyError (no such thing), DecisionRefused, StoreFailed, ValueError (cannot be proposed)."""
        match asked:
            case arguments.VerdictQuery():
                records, cursor = self.custody.records.page(asked)
                return answers.VerdictPage(verdicts=[views.verdict_view(record) for record in records], next_cursor=cursor)
            case arguments.VerdictAsked():
                record = self.custody.records.find(asked.id)
                if record is None:
                    raise KeyError(asked.id)
                return views.verdict_view(record).model_copy(update={"twin_run": await self._run(record.get("item"), caller)})
            case arguments.ItemQuery():
                return await self._list(asked, caller)
            case arguments.ItemAsked():
                return await self._show(asked, caller)
            case arguments.Decision():
                return await self._decide(asked, caller)
            case arguments.Proposal():
                if self.propose is None:
                    return Refusal(code="unfit", text="this instance takes no proposals")
                return await self.propose(asked.toml, caller.by, asked.why, caller.token.may_apply)
            case arguments.LockAsked():
                await self.custody.lock(caller.by, asked.why)
                return self._lock_state()
            case arguments.UnlockAsked():
                if self.custody.locked is None:
                    return Refusal(code="unfit", text="it is not locked")
                await self.custody.unlock(caller.by, asked.why)
                return self._lock_state()
        match tool:
            case "get_status":
                return await self._status(caller, window)
            case "get_policy":
                return answers.PolicyView(version=self.custody.policy.version, policy=self.custody.policy.model_dump(mode="json"))
            case "verify_audit":
                return await self._verify()
        raise AssertionError(tool)

    async def _run(self, item_id: str | None, caller: Caller) -> answers.TwinRun | None:
        """What the call did in its twin, where this token may see the item's payload."""
        if item_id is None or Scope.APPROVE not in caller.token.scopes:
            return None
        try:
            item = await self.custody.item(item_id)
        except KeyError:
            return None
        payload = None if why_own(item.principal, caller) is not None else await self.custody.payload(item_id)
        return None if payload is None or payload.sandbox is None else views.run_view(payload.sandbox)

    async def _list(self, asked: arguments.ItemQuery, caller: Caller) -> answers.ItemPage:
        before = None
        if asked.cursor is not None:
            at, _, item_id = asked.cursor.rpartition(":")
            try:
                before = (float(at), item_id)
            except ValueError:
                raise KeyError(asked.cursor) from None
        found = await self.custody.items(tuple(asked.states), asked.limit + 1, before)
        newest = found[::-1][: asked.limit]
        more = len(found) > asked.limit
        shown = [views.item_view(item, why_own(item.principal, caller)) for item in newest]
        return answers.ItemPage(items=shown, next_cursor=f"{newest[-1].held_at!r}:{newest[-1].id}" if more else None)

    async def _show(self, asked: arguments.ItemAsked, caller: Caller) -> answers.ItemDetail:
        item = await self.custody.item(asked.id)
        own = why_own(item.principal, caller)
        view = views.item_view(item, own).model_dump()
        if not asked.payload:
            return answers.ItemDetail(**view, payload_withheld="not asked for")
        if Scope.APPROVE not in caller.token.scopes:
            return answers.ItemDetail(**view, payload_withheld="only a token with scope `approve` sees payloads")
        if own is not None:
            return answers.ItemDetail(**view, payload_withheld=f"own item: {own}")
        payload = await self.custody.payload(asked.id)
        if payload is None:
            return answers.ItemDetail(**view, payload_withheld="it is shredded")
        run = None if payload.sandbox is None else views.run_view(payload.sandbox)
        return answers.ItemDetail(**view, untrusted_payload=views.payload_view(payload, asked.offset), twin_run=run)

    async def _decide(self, asked: arguments.Decision, caller: Caller) -> answers.ItemView | Refusal:
        item = await self.custody.item(asked.id)
        if (own := why_own(item.principal, caller)) is not None:
            return Refusal(code="own", text=f"not yours to decide: {own}")
        decided: Item
        if asked.decision == "deny":
            decided = await self.custody.deny(asked.id, caller.by, asked.why)
        elif asked.result_sha256 is None:
            raise DecisionRefused("an approval names the bytes it is about: give result_sha256, as get_escrow shows it")
        else:
            decided = await self.custody.approve(asked.id, caller.by, asked.why, asked.result_sha256)
        return views.item_view(decided, None)

    async def _status(self, caller: Caller, window: answers.WindowCounts) -> answers.StatusView:
        now = self.status()
        token = caller.token
        return answers.StatusView(
            mode=now["mode"],
            port=now["port"],
            server=now["server"],
            enforcing=now["enforcing"],
            why=now["why"],
            locked=self._lock_state().locked,
            policy_version=self.custody.policy.version,
            started_at=now["started_at"],
            workers=now["workers"],
            connections=now["connections"],
            counters=now["counters"],
            items=await self.custody.counts(),
            window=window,
            token=answers.TokenView(
                name=token.name, scopes=sorted(token.scopes), acts_as=list(token.acts_as), expires_at=token.expires_at, may_apply=token.may_apply
            ),
        )

    def _lock_state(self) -> answers.LockState:
        locked = self.custody.locked
        return answers.LockState(locked=None if locked is None else answers.LockView(by=locked.by, why=locked.why, at=locked.at))

    async def _verify(self) -> answers.AuditReport | Refusal:
        """One at a time, and not again at once: it keeps a core busy. Whoever asks meanwhile gets the same report."""
        if self.audit is None:
            return Refusal(code="unfit", text="this instance keeps no evidence log")
        if self._auditing is not None and self._auditing.done() and not self._auditing.cancelled() and self._auditing.exception() is None:
            if time.time() - self._auditing.result().checked_at < AUDIT_AGAIN_S:
                return self._auditing.result()
        if self._auditing is None or self._auditing.done():
            self._auditing = asyncio.ensure_future(self.audit())
        try:
            async with asyncio.timeout(AUDIT_S):
                return await asyncio.shield(self._auditing)
        except TimeoutError:
            return Refusal(code="failed", text=f"the log could not be checked within {AUDIT_S:g} s; it is still being checked", retry_after_s=60)
