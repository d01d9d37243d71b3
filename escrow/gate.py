"""The gate: what may happen to a held message, as one table.

Pure. Facts come in (past tense), orders go out (imperative); `step` looks the pair up in `TABLE`, and a missing cell is an error
that names both. Time, bytes and randomness come from the executor, which alone carries orders out (`enforcer.custody`).

    HELD ──Approved──▶ APPROVED ──Delivered──▶ DELIVERED
      │                   └──DeadlinePassed──▶ ABANDONED
      ├──Denied──▶ DENIED            (stands for this exact call until its deadline)
      └──DeadlinePassed──▶ EXPIRED   (somebody asked for it)  or  ABANDONED  (nobody waits)
    every state ──Shredded──▶ SHREDDED

Invariants, each property-tested in tests/escrow/test_gate.py:

* at most one decision for an item, and `Record` comes before any order that lets it take effect;
* `Send` only in APPROVED, and to one waiter at a time;
* every waiter that comes gets exactly one of Send, Claim, Refuse, or leaves;
* no fact but `Approved`, naming the digest of exactly these bytes, leads from HELD to APPROVED.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from escrow.item import Item, State

WaiterId = int


class GateError(Exception):
    """A fact arrived that the table has no cell for, or that cannot be true. A bug here, never the peer's doing."""


class DecisionRefused(Exception):
    """A person's decision cannot be taken: already decided, gone, or made about other bytes. `str()` says which."""


# --- facts ---


@dataclass(frozen=True, slots=True)
class WaiterCame:
    waiter: WaiterId


@dataclass(frozen=True, slots=True)
class WaiterLeft:
    """Its client disconnected or cancelled."""

    waiter: WaiterId


@dataclass(frozen=True, slots=True)
class ClaimDue:
    """`claim_after_s` passed for this waiter."""

    waiter: WaiterId


@dataclass(frozen=True, slots=True)
class Approved:
    """A named person approved the bytes with this digest; released_sha256 is set where the approval redacts."""

    by: str
    why: str
    at: float
    result_sha256: str
    released_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    by: str
    why: str
    at: float


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    at: float


@dataclass(frozen=True, slots=True)
class Delivered:
    """The waiter's TCP acknowledged every byte."""

    waiter: WaiterId
    at: float


@dataclass(frozen=True, slots=True)
class SendFailed:
    """The waiter's connection broke before that."""

    waiter: WaiterId


@dataclass(frozen=True, slots=True)
class Shredded:
    by: str
    at: float


Fact = WaiterCame | WaiterLeft | ClaimDue | Approved | Denied | DeadlinePassed | Delivered | SendFailed | Shredded


# --- orders ---


@dataclass(frozen=True, slots=True)
class Record:
    """Write this state of the item, synced, before carrying out what follows."""

    item: Item


@dataclass(frozen=True, slots=True)
class Send:
    """Give the waiter the item's bytes."""

    waiter: WaiterId


@dataclass(frozen=True, slots=True)
class Claim:
    """Tell the waiter that the message is held, and how to come back for it."""

    waiter: WaiterId


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the waiter that it will not get the message."""

    waiter: WaiterId


@dataclass(frozen=True, slots=True)
class Destroy:
    """Destroy payload and key."""


Order = Record | Send | Claim | Refuse | Destroy


@dataclass(frozen=True, slots=True)
class Entry:
    """An item and who waits for it.

    waiting: waiters that have had no answer yet, in order of coming.
    sending: the waiter that is being sent the bytes.
    """

    item: Item
    waiting: tuple[WaiterId, ...] = ()
    sending: WaiterId | None = None


Step = tuple[Entry, tuple[Order, ...]]


def step(entry: Entry, fact: Fact) -> Step:
    """Apply one fact.

    Raises:
        DecisionRefused: a person's decision that cannot be taken.
        GateError: a fact without a cell.
    """
    try:
        cell = TABLE[entry.item.state, type(fact)]
    except KeyError:
        raise GateError(f"{type(fact).__name__} has no cell in state {entry.item.state.value}") from None
    return cell(entry, fact)


def _without(entry: Entry, waiter: WaiterId) -> tuple[WaiterId, ...]:
    return tuple(other for other in entry.waiting if other != waiter)


def _orphan(item: Item) -> tuple[Item, tuple[Order, ...]]:
    if item.orphaned:
        return item, ()
    orphaned = replace(item, orphaned=True)
    return orphaned, (Record(orphaned),)


def _wait(entry: Entry, fact: WaiterCame) -> Step:
    return replace(entry, waiting=(*entry.waiting, fact.waiter)), ()


def _left(entry: Entry, fact: WaiterLeft) -> Step:
    item, orders = _orphan(entry.item)
    return replace(entry, item=item, waiting=_without(entry, fact.waiter)), orders


def _gone_already(entry: Entry, fact: WaiterLeft) -> Step:
    return replace(entry, waiting=_without(entry, fact.waiter)), ()


def _claim(entry: Entry, fact: ClaimDue) -> Step:
    if fact.waiter not in entry.waiting:
        return entry, ()  # answered while the timer was on its way
    item, orders = _orphan(entry.item)
    return replace(entry, item=item, waiting=_without(entry, fact.waiter)), (*orders, Claim(fact.waiter))


def _late_claim(entry: Entry, fact: ClaimDue) -> Step:
    return entry, ()


def _approve(entry: Entry, fact: Approved) -> Step:
    if fact.result_sha256 != entry.item.result_sha256:
        raise DecisionRefused("the approval names other bytes than the held ones: show the item again")
    item = replace(
        entry.item,
        state=State.APPROVED,
        decided_by=fact.by,
        decided_at=fact.at,
        reason=fact.why,
        released_sha256=fact.released_sha256,
        orphaned=entry.item.orphaned or len(entry.waiting) != 1,
    )
    orders: tuple[Order, ...] = (Record(item),)
    if not entry.waiting:
        return Entry(item), orders
    first, *others = entry.waiting
    return Entry(item, (), first), (*orders, Send(first), *(Claim(other) for other in others))


def _deny(entry: Entry, fact: Denied) -> Step:
    item = replace(entry.item, state=State.DENIED, decided_by=fact.by, decided_at=fact.at, reason=fact.why)
    return Entry(item), (Record(item), *(Refuse(waiter) for waiter in entry.waiting))


def _expire(entry: Entry, fact: DeadlinePassed) -> Step:
    item = replace(entry.item, state=State.EXPIRED if entry.waiting else State.ABANDONED, decided_at=fact.at)
    return Entry(item), (Record(item), *(Refuse(waiter) for waiter in entry.waiting))


def _serve(entry: Entry, fact: WaiterCame) -> Step:
    if entry.sending is not None:
        return entry, (Claim(fact.waiter),)
    return replace(entry, sending=fact.waiter), (Send(fact.waiter),)


def _deliver(entry: Entry, fact: Delivered) -> Step:
    if entry.sending != fact.waiter:
        raise GateError(f"waiter {fact.waiter} was delivered an item that was not sent to it")
    item = replace(entry.item, state=State.DELIVERED, delivered_at=fact.at)
    return Entry(item), (Record(item),)


def _fail(entry: Entry, fact: SendFailed | WaiterLeft) -> Step:
    if entry.sending != fact.waiter:
        return entry, ()
    item, orders = _orphan(entry.item)
    return replace(entry, item=item, sending=None), orders


def _abandon(entry: Entry, fact: DeadlinePassed) -> Step:
    if entry.sending is not None:
        return entry, ()  # it is on its way; Delivered or SendFailed comes
    item = replace(entry.item, state=State.ABANDONED)
    return Entry(item), (Record(item),)


def _turn_away(entry: Entry, fact: WaiterCame) -> Step:
    return entry, (Refuse(fact.waiter),)


def _stand(entry: Entry, fact: Fact) -> Step:
    return entry, ()


def _shred(entry: Entry, fact: Shredded) -> Step:
    decided = entry.item if entry.item.decided_at is not None else replace(entry.item, decided_by=fact.by, decided_at=fact.at)
    item = replace(decided, state=State.SHREDDED)
    return Entry(item), (Record(item), Destroy(), *(Refuse(waiter) for waiter in entry.waiting))


def _too_late(entry: Entry, fact: Approved | Denied) -> Step:
    raise DecisionRefused(f"it is {entry.item.state.value} already" + (f", by {entry.item.decided_by}" if entry.item.decided_by else ""))


_Cell = Callable[..., Step]

TABLE: dict[tuple[State, type[Fact]], _Cell] = {
    (State.HELD, WaiterCame): _wait,
    (State.HELD, WaiterLeft): _left,
    (State.HELD, ClaimDue): _claim,
    (State.HELD, Approved): _approve,
    (State.HELD, Denied): _deny,
    (State.HELD, DeadlinePassed): _expire,
    (State.HELD, Shredded): _shred,
    (State.APPROVED, WaiterCame): _serve,
    (State.APPROVED, WaiterLeft): _fail,
    (State.APPROVED, ClaimDue): _late_claim,
    (State.APPROVED, Approved): _too_late,
    (State.APPROVED, Denied): _too_late,
    (State.APPROVED, DeadlinePassed): _abandon,
    (State.APPROVED, Delivered): _deliver,
    (State.APPROVED, SendFailed): _fail,
    (State.APPROVED, Shredded): _shred,
}

_OVER: dict[type[Fact], _Cell] = {
    WaiterCame: _turn_away,
    WaiterLeft: _gone_already,
    ClaimDue: _late_claim,
    Approved: _too_late,
    Denied: _too_late,
    DeadlinePassed: _stand,
    Delivered: _stand,
    SendFailed: _stand,
    Shredded: _shred,
}
for _state in (State.DENIED, State.EXPIRED, State.ABANDONED, State.DELIVERED, State.SHREDDED):
    TABLE.update({(_state, _fact): _cell for _fact, _cell in _OVER.items()})
