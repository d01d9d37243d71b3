"""The one executor: carries out the gate's orders, holds the clock, and is the only way to the store.

The relay brings calls and messages; people's decisions come over the control socket. Everything the gate decides passes `_apply`:
the place where every decision is recorded before it takes effect.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from enforcer.store import StoreError
from escrow import answers, gate, jsonrpc
from escrow.answers import Why
from escrow.call import Call, Kind, Transport
from escrow.decision import Ruling, decide
from escrow.item import Item, Payload, State, verdict_json
from escrow.policy import Policy
from escrow.principal import Principal
from escrow.tools import definitions, judge_tools
from escrow.verdict import Verdict, unsure

_T = TypeVar("_T")
Judge = Callable[[jsonrpc.Message], Awaitable[Verdict]]
"""A judge: takes a message, gives a verdict, never raises by contract; where it does, that is UNSURE."""


class StoreFailed(Exception):
    """The store refused a write: what depended on it must not take effect."""


class Custodian(Protocol):
    """The part of the store that custody uses; `enforcer.store.Store` is one."""

    def put(self, item: Item, payload: Payload) -> None: ...
    def update(self, item: Item) -> None: ...
    def replace_payload(self, item: Item, payload: Payload) -> None: ...
    def get(self, item_id: str) -> Item | None: ...
    def list_items(self, states: tuple[State, ...], limit: int) -> list[Item]: ...
    def counts(self) -> dict[str, int]: ...
    def payload(self, item_id: str) -> Payload | None: ...
    def shred(self, item: Item) -> None: ...
    def tools(self, server: str) -> list[dict[str, Any]]: ...
    def trusted(self, server: str) -> tuple[frozenset[tuple[str, str]], bool]: ...
    def offer(self, server: str, tools: list[tuple[str, str, str]], at: float) -> None: ...
    def offered(self, server: str) -> list[tuple[str, str, str]]: ...
    def trust(self, server: str, tools: list[tuple[str, str, str]], by: str, at: float, complete: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message from the server, on its way to a client.

    call: the client request it answers; None for a server's own request, a notification, or an answer nobody asked for.
    asked_at: monotonic seconds at which that request came (for other messages: at which they did).
    connected: whether a client is there to take it.
    """

    message: jsonrpc.Message
    call: Call | None
    server: str
    principal: Principal
    session: str | None
    transport: Transport
    asked_at: float
    headers: tuple[tuple[str, str], ...] = ()
    connected: bool = True

    @property
    def kind(self) -> Kind:
        if isinstance(self.message, jsonrpc.Request):
            return Kind.SERVER_REQUEST
        if isinstance(self.message, jsonrpc.Notification):
            return Kind.NOTIFICATION
        return self.call.kind if self.call else Kind.OTHER

    @property
    def answer_id(self) -> int | str | None:
        """Under which id our own words go out. Never an id that a server made up: it could be any text."""
        if isinstance(self.message, jsonrpc.Request):
            return self.message.id
        return self.call.id if self.call and isinstance(self.message, jsonrpc.Response) else None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What goes to the client: a message's bytes, or None for nothing. why: None for a release."""

    raw: bytes | None
    headers: tuple[tuple[str, str], ...] = ()
    why: Why | None = None
    item_id: str = ""


class Ticket:
    """A waiter at a held item. The relay awaits `outcome`, then says what became of it."""

    def __init__(self, custody: Custody, item_id: str, number: int, answer_id: int | str | None) -> None:
        self.item_id, self.number, self.answer_id = item_id, number, answer_id
        self._custody = custody
        self.answered: asyncio.Future[Outgoing] = asyncio.get_running_loop().create_future()

    async def outcome(self) -> Outgoing:
        return await asyncio.shield(self.answered)

    async def delivered(self) -> None:
        await self._custody.fact(self.item_id, gate.Delivered(self.number, time.time()))

    async def failed(self) -> None:
        """The connection broke, before or while the answer was sent."""
        await self._custody.fact(self.item_id, gate.WaiterLeft(self.number))


@dataclass(slots=True)
class Running:
    """A call on its way through the server. settled: the id of the item it left behind for a retry, or None."""

    call: Call
    orphaned: bool = False
    asked_client: bool = False
    """The server asked the client something meanwhile: with that client gone the call may never end, so nobody waits for it."""
    settled: asyncio.Future[str | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class Counters:
    """Since the daemon's start."""

    judged: int = 0
    released: int = 0
    held: int = 0
    refused: int = 0
    unreadable: int = 0


class Custody:
    """See the module. One for each daemon; all methods belong to its event loop; the store is used in one thread of its own."""

    def __init__(self, policy: Policy, server: str, store: Custodian, judge: Judge) -> None:
        self.policy, self.server = policy, server
        self.counters = Counters()
        self.lost = 0
        self._store, self._judge = store, judge
        self._thread = ThreadPoolExecutor(1, "store")
        self._closed = False
        self._entries: dict[str, gate.Entry] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tickets: dict[int, Ticket] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._by_identity: dict[tuple[str, ...], list[str]] = {}
        self._running: dict[tuple[str, ...], list[Running]] = {}
        self._next = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._trusted: tuple[frozenset[tuple[str, str]], bool] = (frozenset(), False)
        self.recent: deque[dict[str, Any]] = deque(maxlen=1000)
        self._followers: set[asyncio.Queue[dict[str, Any]]] = set()
        self._pending_tools: OrderedDict[str, list[tuple[str, str, str]]] = OrderedDict()

    async def open(self) -> None:
        """Take over what an earlier daemon left: its clients are gone, so every undecided item is an orphan."""
        for item in await self._in_store(self._store.list_items, (State.HELD, State.APPROVED, State.DENIED), 1_000_000):
            if item.state is State.DENIED and item.deadline <= time.time():
                continue
            if not item.orphaned:
                item = replace(item, orphaned=True)
                await self._in_store(self._store.update, item)
            self._adopt(item)
        self._trusted = await self._in_store(self._store.trusted, self.server)

    def close(self) -> None:
        """After this nothing is read or written any more; what is under way is finished first."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._thread.shutdown(wait=True)

    # --- what the relay brings ---

    async def ask(self, call: Call) -> Running | Ticket:
        """A client's request came. A `Ticket`: it is a retry, wait there and do not run it. A `Running`: send it to the server."""
        for item_id in tuple(self._by_identity.get(call.identity, ())):
            if (lock := self._locks.get(item_id)) is not None:
                async with lock:  # that its client left may be being written just now
                    pass
            entry = self._entries.get(item_id)
            if entry is None:
                continue
            # A denial stands for the exact call, whether or not its client was there to hear it.
            if entry.item.state is State.DENIED or (entry.item.orphaned and entry.item.state in (State.HELD, State.APPROVED)):
                if (ticket := await self._come(item_id, call.id, time.monotonic())) is not None:
                    return ticket
        for running in tuple(self._running.get(call.identity, ())):
            if running.orphaned and not running.asked_client:
                left = await asyncio.shield(running.settled)
                if left is not None and (ticket := await self._come(left, call.id, time.monotonic())) is not None:
                    return ticket
        running = Running(call)
        self._running.setdefault(call.identity, []).append(running)
        return running

    def settle(self, running: Running, item_id: str | None = None) -> None:
        """The call is over: it left an item, or nothing."""
        if not running.settled.done():
            running.settled.set_result(item_id)
            siblings = self._running.get(running.call.identity, [])
            if running in siblings:
                siblings.remove(running)
            if not siblings:
                self._running.pop(running.call.identity, None)

    def cancelled(self, call: Call) -> None:
        """Its client cancelled it: it may never be answered, so nobody is to wait for it."""
        for running in list(self._running.get(call.identity, ())):
            if running.call is call:
                self.settle(running)

    async def receive(self, arrival: Arrival) -> Outgoing | Ticket:
        """Judge a message. An `Outgoing`: send it, now. A `Ticket`: it is held (or refused); wait there."""
        verdicts = await self._verdicts(arrival)
        decision = decide(verdicts, frozenset(self.policy.judging.require), self.policy.judging.on_hostile)
        self.counters.judged += 1
        payload = Payload(arrival.message.raw, arrival.headers)
        if decision.ruling is Ruling.RELEASE:
            if not await self._trust_first(arrival):
                verdicts = (*verdicts, unsure("tools", "tools.unrecorded", "The tool definitions could not be recorded."))
            elif arrival.connected:
                self.counters.released += 1
                self._note(arrival, verdicts, "released", decision.recorded, None)
                return Outgoing(payload.raw, payload.headers)
        item = self._item(arrival, payload, verdicts, decision.ruling)
        if len(self._entries) >= self.policy.escrow.max_items:
            self.counters.refused += 1
            self._note(arrival, verdicts, "refused", "full", None)
            return self._words(item, arrival.answer_id, Why.DENIED)
        try:
            await self._in_store(self._store.put, item, payload)
        except Exception:
            # Nothing is let through that could not be recorded: the client is told "denied", nothing is kept.
            self.counters.refused += 1
            self._note(arrival, verdicts, "refused", "unrecorded", None)
            return self._words(item, arrival.answer_id, Why.DENIED)
        self._adopt(item)
        self.counters.held += 1
        self._note(arrival, verdicts, item.state.value, decision.recorded, item.id)
        if not arrival.connected and arrival.call is not None:  # nobody waits here; the same call made again collects it
            return Outgoing(None, (), Why.HELD, item.id)
        ticket = await self._come(item.id, arrival.answer_id, arrival.asked_at)
        return ticket if ticket is not None else self._words(item, arrival.answer_id, Why.EXPIRED)

    async def fact(self, item_id: str, fact: gate.Fact) -> None:
        """Something became of a waiter. Facts about items that are over are dropped."""
        if item_id in self._entries:
            await self._apply(item_id, fact)

    def unreadable(self, where: str) -> None:
        """A message was refused because it could not be read in one way only."""
        self.counters.unreadable += 1
        self._publish({"at": time.time(), "outcome": "refused", "recorded": "unreadable", "where": where})

    # --- what people say ---

    async def approve(self, item_id: str, by: str, why: str, result_sha256: str, released: bytes | None = None) -> Item:
        """Raises gate.DecisionRefused, KeyError (no such item), StoreFailed."""
        await self._known(item_id)
        digest = None if released is None else hashlib.sha256(released).hexdigest()
        entry = self._entries.get(item_id)
        if released is not None and entry is not None and entry.item.state is State.HELD:
            payload = await self._in_store(self._store.payload, item_id)
            if payload is not None:
                await self._in_store(self._store.replace_payload, entry.item, replace(payload, released=released))
        item = await self._decide(item_id, gate.Approved(by, why, time.time(), result_sha256, digest))
        if item.method == "tools/list" and item_id in self._pending_tools:
            await self.trust(by, self._pending_tools.pop(item_id))
        return item

    async def deny(self, item_id: str, by: str, why: str) -> Item:
        await self._known(item_id)
        return await self._decide(item_id, gate.Denied(by, why, time.time()))

    async def shred(self, item_id: str, by: str) -> Item:
        await self._known(item_id)
        return await self._decide(item_id, gate.Shredded(by, time.time()))

    async def items(self, states: tuple[State, ...], limit: int) -> list[Item]:
        return await self._in_store(self._store.list_items, states, limit)

    async def item(self, item_id: str) -> Item:
        """Raises KeyError."""
        item = await self._in_store(self._store.get, item_id)
        if item is None:
            raise KeyError(item_id)
        return item

    async def payload(self, item_id: str) -> Payload | None:
        return await self._in_store(self._store.payload, item_id)

    async def counts(self) -> dict[str, int]:
        return await self._in_store(self._store.counts)

    async def tools(self) -> list[dict[str, Any]]:
        return await self._in_store(self._store.tools, self.server)

    async def trust(self, by: str, tools: list[tuple[str, str, str]] | None = None) -> int:
        """Trust the given definitions, or those last offered. Returns how many."""
        chosen = await self._in_store(self._store.offered, self.server) if tools is None else tools
        await self._in_store(self._store.trust, self.server, chosen, by, time.time(), True)
        self._trusted = await self._in_store(self._store.trusted, self.server)
        return len(chosen)

    async def judge(self, message: jsonrpc.Message) -> Verdict:
        """What the scanner says of a message under the present policy (a replay, a redaction); changes nothing."""
        return await self._scan(message)

    def follow(self) -> asyncio.Queue[dict[str, Any]]:
        """A queue of decisions as they come; give it back to `unfollow`."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1000)
        self._followers.add(queue)
        return queue

    def unfollow(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        self._followers.discard(queue)

    # --- judging ---

    async def _scan(self, message: jsonrpc.Message) -> Verdict:
        try:
            return await self._judge(message)
        except Exception as error:
            return unsure("scanner", "scanner.failed", f"The scanner failed ({type(error).__name__}).")

    async def _verdicts(self, arrival: Arrival) -> tuple[Verdict, ...]:
        verdict = await self._scan(arrival.message)
        verdicts = [verdict]
        message = arrival.message
        if isinstance(message, jsonrpc.Response) and not message.is_error:
            if arrival.call is None:
                verdicts.append(unsure("pairing", "pairing.unknown", "It answers no request that passed here."))
            elif arrival.call.method == "tools/list":
                verdicts.append(judge_tools(message.value, *self._trusted))
        return tuple(verdicts)

    async def _trust_first(self, arrival: Arrival) -> bool:
        """Trust what a clean first listing offers. Whether that could be recorded."""
        message = arrival.message
        if not isinstance(message, jsonrpc.Response) or message.is_error or arrival.call is None or arrival.call.method != "tools/list":
            return True
        found = definitions(message.value)
        last = not (isinstance(message.value, dict) and message.value.get("nextCursor"))
        known, complete = self._trusted
        if complete and {(name, digest) for name, digest, _ in found} <= known:
            return True
        try:
            await self._in_store(self._store.offer, self.server, found, time.time())
            await self._in_store(self._store.trust, self.server, found, "first use", time.time(), last)
            self._trusted = await self._in_store(self._store.trusted, self.server)
        except Exception:
            return False
        return True

    # --- the gate ---

    def _item(self, arrival: Arrival, payload: Payload, verdicts: tuple[Verdict, ...], ruling: Ruling) -> Item:
        state = {Ruling.RELEASE: State.APPROVED, Ruling.HOLD: State.HELD, Ruling.REFUSE: State.DENIED}[ruling]
        if any(verdict.judge == "tools" and verdict.finding != "CLEAN" for verdict in verdicts) and state is State.APPROVED:
            state = State.HELD
        now, message, call = time.time(), arrival.message, arrival.call
        method = call.method if call else getattr(message, "method", "response")
        item_id = f"hf-{secrets.token_hex(5)}"
        if call and call.method == "tools/list" and isinstance(message, jsonrpc.Response):
            found = definitions(message.value)
            self._pending_tools[item_id] = found
            while len(self._pending_tools) > 64:
                self._pending_tools.popitem(last=False)
            self._spawn(self._in_store(self._store.offer, self.server, found, now))
        return Item(
            id=item_id,
            state=state,
            kind=arrival.kind,
            tool=(call.name if call else method)[:512],
            method=method[:128],
            server=arrival.server,
            principal=str(arrival.principal),
            session=arrival.session,
            transport=arrival.transport,
            call_id=None if isinstance(message, jsonrpc.Notification) else message.id,
            args_sha256=call.args_sha256 if call else hashlib.sha256(b"{}").hexdigest(),
            result_sha256=hashlib.sha256(payload.raw).hexdigest(),
            size_bytes=len(payload.raw),
            policy_version=self.policy.version,
            held_at=now,
            deadline=now + self.policy.escrow.hold_for_s,
            verdicts=verdicts,
            orphaned=not arrival.connected or state is State.DENIED,
            decided_by=None if state is State.HELD else ("judges" if state is State.APPROVED else "policy"),
            decided_at=None if state is State.HELD else now,
            reason=None if state is State.HELD else ("clean, but its client had gone" if state is State.APPROVED else "on_hostile = refuse"),
        )

    def _adopt(self, item: Item) -> None:
        self._entries[item.id] = gate.Entry(item)
        self._locks[item.id] = asyncio.Lock()
        if item.kind not in (Kind.NOTIFICATION, Kind.SERVER_REQUEST) and item.method != "response":
            self._by_identity.setdefault(item.identity, []).append(item.id)
        wait_s = max(0.0, item.deadline - time.time())
        self._timers[item.id] = asyncio.get_running_loop().call_later(wait_s, self._expire, item.id)

    def _expire(self, item_id: str) -> None:
        self._spawn(self._expired(item_id))

    async def _expired(self, item_id: str) -> None:
        entry = self._entries.get(item_id)
        if entry is None:
            return
        await self._apply(item_id, gate.DeadlinePassed(time.time()))
        entry = self._entries.get(item_id)  # somebody may have come for it meanwhile
        if entry is not None and entry.sending is not None:  # on its way: look again once that is over
            self._timers[item_id] = asyncio.get_running_loop().call_later(5, self._expire, item_id)
        else:
            self._forget(item_id)

    def _forget(self, item_id: str) -> None:
        """Nothing more can become of it: a later call is a new one."""
        entry = self._entries.pop(item_id, None)
        self._locks.pop(item_id, None)
        if timer := self._timers.pop(item_id, None):
            timer.cancel()
        if entry is not None and item_id in (ids := self._by_identity.get(entry.item.identity, [])):
            ids.remove(item_id)
            if not ids:
                del self._by_identity[entry.item.identity]

    async def _come(self, item_id: str, answer_id: int | str | None, asked_at: float) -> Ticket | None:
        """A waiter at an item; None where the item was over before it came."""
        self._next += 1
        ticket = Ticket(self, item_id, self._next, answer_id)
        self._tickets[ticket.number] = ticket
        if not await self._apply(item_id, gate.WaiterCame(ticket.number)):
            del self._tickets[ticket.number]
            return None
        if not ticket.answered.done():
            wait_s = max(0.0, asked_at + self.policy.escrow.claim_after_s - time.monotonic())
            loop = asyncio.get_running_loop()
            timer = loop.call_later(wait_s, lambda: self._spawn(self.fact(item_id, gate.ClaimDue(ticket.number))))
            ticket.answered.add_done_callback(lambda _: timer.cancel())
        return ticket

    async def _known(self, item_id: str) -> None:
        """Make sure an entry exists for an item that the store has. Raises KeyError."""
        if item_id not in self._entries:
            item = await self.item(item_id)
            self._entries.setdefault(item_id, gate.Entry(item))
            self._locks.setdefault(item_id, asyncio.Lock())

    async def _decide(self, item_id: str, fact: gate.Fact) -> Item:
        try:
            await self._apply(item_id, fact)
            item = self._entries[item_id].item
        finally:
            if item_id not in self._timers:  # it was over, and looked at for this decision only
                self._forget(item_id)
        self._publish({"at": time.time(), "outcome": item.state.value, "item": item.id, "by": item.decided_by, "tool": item.tool})
        if item.state is State.SHREDDED:
            self._forget(item_id)
        return item

    async def _apply(self, item_id: str, fact: gate.Fact) -> bool:
        """One fact, one step, its orders in order. `Record` is synced before what follows; where that fails nothing is sent.

        False where the item is over and forgotten, perhaps while this waited for its turn.
        """
        lock = self._locks.get(item_id)
        if lock is None:
            return False
        async with lock:
            before = self._entries.get(item_id)
            if before is None:
                return False
            entry, orders = gate.step(before, fact)
            failed: StoreFailed | None = None
            for order in orders:
                match order:
                    case gate.Record(item):
                        try:
                            await self._in_store(self._store.update, item)
                        except Exception as error:
                            if isinstance(fact, gate.Approved | gate.Denied | gate.Shredded):
                                raise StoreFailed(str(error)) from None
                            # A waiter's fact or the clock's: no Send follows one, its Claims and Refusals do, and the disk still holds.
                            self.lost += 1
                        self._entries[item_id] = entry  # from here on it is decided, whatever becomes of the rest
                    case gate.Destroy():
                        try:
                            await self._in_store(self._store.shred, entry.item)
                        except Exception as error:
                            failed = StoreFailed(f"it is refused for good, but not destroyed yet: {error}")
                    case gate.Send(waiter):
                        await self._send(entry.item, waiter)
                    case gate.Claim(waiter):
                        self._reply(entry.item, waiter, Why.HELD)
                    case gate.Refuse(waiter):
                        self._reply(entry.item, waiter, Why.EXPIRED if entry.item.state in (State.EXPIRED, State.ABANDONED) else Why.DENIED)
            self._entries[item_id] = entry
            if entry.item.state is State.DELIVERED:
                self._forget(item_id)
            if failed is not None:
                raise failed
        return True

    async def _send(self, item: Item, waiter: int) -> None:
        ticket = self._tickets.pop(waiter, None)
        try:
            payload = await self._in_store(self._store.payload, item.id)
        except Exception:  # altered on disk, or not readable: nothing goes out
            payload = None
        if ticket is None or ticket.answered.done():
            return
        # A redaction that was prepared but not decided is not what was approved.
        raw = None if payload is None else payload.raw if item.released_sha256 is None else payload.released
        if payload is None or raw is None or hashlib.sha256(raw).hexdigest() != (item.released_sha256 or item.result_sha256):
            ticket.answered.set_result(self._words(item, ticket.answer_id, Why.DENIED))
            return
        if ticket.answer_id is not None and ticket.answer_id != item.call_id:
            raw = jsonrpc.with_id(raw, ticket.answer_id)
        self.counters.released += 1
        ticket.answered.set_result(Outgoing(raw, payload.headers, None, item.id))

    def _reply(self, item: Item, waiter: int, why: Why) -> None:
        ticket = self._tickets.pop(waiter, None)
        if ticket is not None and not ticket.answered.done():
            ticket.answered.set_result(self._words(item, ticket.answer_id, why))

    def _words(self, item: Item, answer_id: int | str | None, why: Why) -> Outgoing:
        if item.kind is Kind.NOTIFICATION or answer_id is None:
            return Outgoing(None, (), why, item.id)
        if item.kind is Kind.SERVER_REQUEST:
            return Outgoing(answers.error_for_server(why, item.id, answer_id), (), why, item.id)
        return Outgoing(answers.result_for(item.kind, why, item.id, answer_id), (), why, item.id)

    # --- plumbing ---

    async def _in_store(self, function: Callable[..., _T], *args: Any) -> _T:
        """Run in the store's thread. Raises StoreFailed."""
        if self._closed:
            raise StoreFailed("Holdfast is stopping")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args))
        except StoreError as error:
            raise StoreFailed(str(error)) from None

    def _spawn(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.lost += 1  # a write that failed in the background; status shows it

    def _note(self, arrival: Arrival, verdicts: tuple[Verdict, ...], outcome: str, recorded: str, item_id: str | None) -> None:
        self._publish(
            {
                "at": time.time(),
                "outcome": outcome,
                "recorded": recorded,
                "item": item_id,
                "kind": arrival.kind.value,
                "tool": arrival.call.name[:512] if arrival.call else getattr(arrival.message, "method", "response")[:512],
                "server": arrival.server,
                "principal": str(arrival.principal),
                "session": arrival.session,
                "verdicts": verdicts,
            }
        )

    def _publish(self, record: dict[str, Any]) -> None:
        self.recent.append(record)
        for queue in self._followers:
            if not queue.full():
                queue.put_nowait(record)


def record_json(record: dict[str, Any]) -> str:
    """A published decision as one line of JSON."""
    return json.dumps({**record, "verdicts": [verdict_json(verdict) for verdict in record.get("verdicts", ())]})
