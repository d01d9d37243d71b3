"""The gate's orders on held items, carried out: the clock, who waits, and the store.

One lock for each item, so that facts about it are taken one after the other. What the gate says to record is synced before what follows.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from enforcer.custody.custodian import StoreFailed, StoreThread
from enforcer.custody.records import Records
from enforcer.custody.ticket import Ticket
from enforcer.custody.traffic import Outgoing, Running
from escrow import answers, gate, jsonrpc
from escrow.answers import Why
from escrow.call import Call, Kind
from escrow.item import Item, State


class Executor:
    """See the module.

    prepare: what comes before an approved request goes on, given its bytes. begin: told of the call under way that it becomes. may_run: whether it still may.
    released: told of each release.
    """

    def __init__(
        self,
        store: StoreThread,
        records: Records,
        prepare: Callable[[Running, bytes], Awaitable[None]],
        begin: Callable[[Running], None],
        released: Callable[[Item, bytes], None],
        may_run: Callable[[Call], bool],
    ) -> None:
        self.entries: dict[str, gate.Entry] = {}
        self.lost = 0
        """Writes that failed in the background; `status` shows it."""
        self._store, self._records, self._prepare, self._begin, self._released, self._may_run = store, records, prepare, begin, released, may_run
        self._locks: dict[str, asyncio.Lock] = {}
        self._tickets: dict[int, Ticket] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._by_identity: dict[tuple[str, ...], list[str]] = {}
        self._next = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()

    def known(self, identity: tuple[str, ...]) -> bool:
        """Whether anything stands in escrow for this exact call."""
        return identity in self._by_identity

    async def standing(self, identity: tuple[str, ...]) -> list[Item]:
        """What stands in escrow for this exact call, once what is being written about it is written."""
        found = []
        for item_id in tuple(self._by_identity.get(identity, ())):
            if (lock := self._locks.get(item_id)) is not None:
                async with lock:
                    pass
            if (entry := self.entries.get(item_id)) is not None:
                found.append(entry.item)
        return found

    def adopt(self, item: Item) -> None:
        """An item that the store has: from now on facts about it are taken, and its time runs."""
        self.entries[item.id] = gate.Entry(item)
        self._locks[item.id] = asyncio.Lock()
        if item.kind not in (Kind.NOTIFICATION, Kind.SERVER_REQUEST) and item.method != "response":
            self._by_identity.setdefault(item.identity, []).append(item.id)
        wait_s = max(0.0, item.deadline - time.time())
        self._timers[item.id] = asyncio.get_running_loop().call_later(wait_s, self._expire, item.id)

    def look_at(self, item: Item) -> None:
        """An item that is over, for one decision about it."""
        self.entries.setdefault(item.id, gate.Entry(item))
        self._locks.setdefault(item.id, asyncio.Lock())

    async def come(self, item_id: str, answer_id: int | str | None, call: Call | None, claim_at: float, raw: bytes = b"") -> Ticket | None:
        """A waiter at an item; None where the item was over before it came. claim_at: monotonic seconds. raw: of a request, see `Ticket`."""
        self._next += 1
        ticket = Ticket(self, item_id, self._next, answer_id, call, raw)
        self._tickets[ticket.number] = ticket
        if not await self._apply(item_id, gate.WaiterCame(ticket.number)):
            del self._tickets[ticket.number]
            return None
        if not ticket.answered.done():
            loop = asyncio.get_running_loop()
            wait_s = max(0.0, claim_at - time.monotonic())
            timer = loop.call_later(wait_s, lambda: self.spawn(self.fact(item_id, gate.ClaimDue(ticket.number))))
            ticket.answered.add_done_callback(lambda _: timer.cancel())
        return ticket

    async def go_on(self, ticket: Ticket, running: Running) -> None:
        """An approved request goes to the server. Raises StoreFailed: it must not."""
        await self._prepare(running, ticket.raw)
        try:
            if not self._may_run(running.call):
                raise StoreFailed("it may not run any more")
            await self.fact(ticket.item_id, gate.Delivered(ticket.number, time.time()))
        except BaseException:
            if running.on_over is not None:
                running.on_over()
            raise
        self._begin(running)

    async def fact(self, item_id: str, fact: gate.Fact) -> None:
        """Something became of a waiter. Facts about items that are over are dropped."""
        if item_id in self.entries:
            await self._apply(item_id, fact)

    async def decide(self, item_id: str, fact: gate.Fact) -> Item:
        """A person's decision. Raises gate.DecisionRefused, StoreFailed."""
        try:
            await self._apply(item_id, fact)
            item = self.entries[item_id].item
        finally:
            if item_id not in self._timers:  # it was over, and looked at for this decision only
                self._forget(item_id)
        if item.state is State.SHREDDED:
            self._forget(item_id)
        return item

    async def amend(self, item: Item, change: Callable[[Item], Item]) -> Item:
        """Write more about an item, whether or not it is over. Raises StoreFailed."""
        async with self._locks.get(item.id, asyncio.Lock()):
            entry = self.entries.get(item.id)
            changed = change(item if entry is None else entry.item)
            await self._store(self._store.store.update, changed)
            if entry is not None:
                self.entries[item.id] = replace(entry, item=changed)
            return changed

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Work in the background whose failure is counted."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.lost += 1

    def words(self, item: Item, answer_id: int | str | None, why: Why) -> Outgoing:
        """What goes out instead of an item."""
        if item.kind is Kind.NOTIFICATION or answer_id is None:
            return Outgoing(None, (), why, item.id)
        if item.kind is Kind.SERVER_REQUEST:
            return Outgoing(answers.error_for_server(why, item.id, answer_id), (), why, item.id)
        return Outgoing(answers.result_for(item.kind, why, item.id, answer_id, of_request=item.holds == "request"), (), why, item.id)

    # --- the clock ---

    def _expire(self, item_id: str) -> None:
        self.spawn(self._expired(item_id))

    async def _expired(self, item_id: str) -> None:
        entry = self.entries.get(item_id)
        if entry is None:
            return
        await self._apply(item_id, gate.DeadlinePassed(time.time()))
        entry = self.entries.get(item_id)  # somebody may have come for it meanwhile
        if entry is not None and entry.sending is not None:  # on its way: look again once that is over
            self._timers[item_id] = asyncio.get_running_loop().call_later(5, self._expire, item_id)
        else:
            self._forget(item_id)

    def _forget(self, item_id: str) -> None:
        """Nothing more can become of it: a later call is a new one."""
        entry = self.entries.pop(item_id, None)
        self._locks.pop(item_id, None)
        if timer := self._timers.pop(item_id, None):
            timer.cancel()
        if entry is not None and item_id in (ids := self._by_identity.get(entry.item.identity, [])):
            ids.remove(item_id)
            if not ids:
                del self._by_identity[entry.item.identity]

    # --- orders ---

    async def _apply(self, item_id: str, fact: gate.Fact) -> bool:
        """One fact, one step, its orders in order. `Record` is synced before what follows; where that fails nothing is sent.

        False where the item is over and forgotten, perhaps while this waited for its turn.
        """
        lock = self._locks.get(item_id)
        if lock is None:
            return False
        async with lock:
            before = self.entries.get(item_id)
            if before is None:
                return False
            entry, orders = gate.step(before, fact)
            failed: StoreFailed | None = None
            for order in orders:
                match order:
                    case gate.Record(item):
                        await self._record(item, fact)
                        self.entries[item_id] = entry  # from here on it is decided, whatever becomes of the rest
                    case gate.Destroy():
                        try:
                            await self._store(self._store.store.shred, entry.item)
                        except Exception as error:
                            failed = StoreFailed(f"it is refused for good, but not destroyed yet: {error}")
                    case gate.Send(waiter):
                        await self._send(entry.item, waiter)
                    case gate.Claim(waiter):
                        self._reply(entry.item, waiter, Why.HELD)
                    case gate.Refuse(waiter):
                        self._reply(entry.item, waiter, Why.EXPIRED if entry.item.state in (State.EXPIRED, State.ABANDONED) else Why.DENIED)
            self.entries[item_id] = entry
            if entry.item.state is State.DELIVERED:
                self._forget(item_id)
            if failed is not None:
                raise failed
        return True

    async def _record(self, item: Item, fact: gate.Fact) -> None:
        """Into the evidence log first, synced, then into the store: what took effect was recorded, and what was recorded is said to have failed."""
        # What takes effect by being written is refused where that fails: a person's decision, and the start of an approved call.
        effective = isinstance(fact, gate.Approved | gate.Denied | gate.Shredded) or (isinstance(fact, gate.Delivered) and item.holds == "request")
        try:
            await self._tell(item, fact)
            await self._store(self._store.store.update, item)
        except Exception as error:
            if effective:
                with suppress(Exception):
                    undone = replace(item, state=self.entries[item.id].item.state)
                    await self._records.decided(undone, "holdfast", "the store refused the write: it stands as before", None, None)
                raise StoreFailed(str(error)) from None
            # A waiter's fact or the clock's: no Send follows one, its Claims and Refusals do, and the disk still holds.
            self.lost += 1

    async def _tell(self, item: Item, fact: gate.Fact) -> None:
        """The evidence of a fact that decides or ends something; that a waiter came or left does neither."""
        match fact:
            case gate.Approved(by, why):
                secret = await self._store(self._store.store.secret, item.id)
                payload = await self._store(self._store.store.payload, item.id) if item.released_sha256 is not None else None
                await self._records.decided(item, by, why, None if payload is None else payload.released, secret)
            case gate.Denied(by, why):
                await self._records.decided(item, by, why, None, None)
            case gate.Shredded(by):
                await self._records.decided(item, by, "shredded", None, None)
            case gate.DeadlinePassed():
                await self._records.decided(item, "clock", "nobody decided in time" if item.state is State.EXPIRED else "nobody came for it", None, None)
            case gate.Delivered() if item.holds == "request":
                await self._records.decided(item, "client", "the approved call goes on", None, None)
            case gate.Delivered():
                self._records.delivered(item)

    async def _send(self, item: Item, waiter: int) -> None:
        ticket = self._tickets.pop(waiter, None)
        if ticket is not None and item.holds == "request" and not ticket.answered.done():
            if ticket.call is None:
                ticket.answered.set_result(self.words(item, ticket.answer_id, Why.DENIED))
            else:
                ticket.answered.set_result(Outgoing(None, (), None, item.id, Running(ticket.call)))
            return
        try:
            payload = await self._store(self._store.store.payload, item.id)
        except Exception:  # altered on disk, or not readable: nothing goes out
            payload = None
        if ticket is None or ticket.answered.done():
            return
        # A redaction that was prepared but not decided is not what was approved.
        raw = None if payload is None else payload.raw if item.released_sha256 is None else payload.released
        if payload is None or raw is None or hashlib.sha256(raw).hexdigest() != (item.released_sha256 or item.result_sha256):
            ticket.answered.set_result(self.words(item, ticket.answer_id, Why.DENIED))
            self.spawn(self.fact(item.id, gate.SendFailed(waiter)))  # else it would seem to be on its way for ever
            return
        if ticket.answer_id is not None and ticket.answer_id != item.call_id:
            raw = jsonrpc.with_id(raw, ticket.answer_id)
        self._released(item, raw)
        ticket.answered.set_result(Outgoing(raw, payload.headers, None, item.id))

    def _reply(self, item: Item, waiter: int, why: Why) -> None:
        ticket = self._tickets.pop(waiter, None)
        if ticket is not None and not ticket.answered.done():
            ticket.answered.set_result(self.words(item, ticket.answer_id, why))
