"""What the daemon asks the keeper about the clones that are taken before real calls, as data, and how the keeper carries it out.

    take      a clone before a real call        settle    right after it: what the state then is
    plan      what putting back would change    revert    do that
    forget    nobody will put it back any more

The clones of a server stand in its folder of the keeper's (`revert.py`): at most `MOST`, each for at most `KEPT_S`.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from enforcer.sandbox import revert
from escrow.sandbox.effects import Write
from escrow.sandbox.settings import SandboxSettings

MOST: Final = 64
"""Clones of one server. Each may be as large as its state."""

KEPT_S: Final = 30 * 86400.0
MAX_CHANGES: Final = 500
MAX_TEXT: Final = 1024
LOOK_S: Final = 20.0
"""How long the state may be looked at; while a call is kept waiting the policy's `snapshot_ms` counts."""

REVERT_S: Final = 120.0

Verb = Literal["take", "settle", "plan", "revert", "forget"]


@dataclass(frozen=True, slots=True)
class Order:
    """token: of which clone; "" to take one."""

    verb: Verb
    token: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """token: of the clone that was taken. why: what went wrong; "" where nothing did. done: it is as before the call.

    changes: of a plan, or what was done, paths as the host has them; more: how many are left out of these.
    """

    token: str | None = None
    why: str = ""
    changes: tuple[Write, ...] = ()
    more: int = 0
    done: bool = False


_order = TypeAdapter(Order)
_told = TypeAdapter(Told)


class NoOrder(ValueError):
    """The bytes are none of these."""


def order_bytes(order: Order) -> bytes:
    return _order.dump_json(order)


def read_order(raw: bytes) -> Order:
    """Raises NoOrder."""
    try:
        return _order.validate_json(raw)
    except ValidationError:
        raise NoOrder from None


def told_bytes(told: Told) -> bytes:
    return _told.dump_json(told)


def read_told(raw: bytes) -> Told:
    """Raises NoOrder: also where it passes a bound."""
    try:
        told = _told.validate_json(raw)
    except ValidationError:
        raise NoOrder from None
    if len(told.changes) > MAX_CHANGES or len(told.why) > MAX_TEXT or any(len(each.path) > MAX_TEXT for each in told.changes):
        raise NoOrder
    return told


def carry_out(folder: Path, settings: SandboxSettings, order: Order) -> Told:
    """folder: the server's own, of the keeper's. Raises nothing."""
    now = time.monotonic()
    match order.verb:
        case "take":
            if len(list((folder / "reverts").glob("*/clones"))) >= MOST:
                return Told(why=f"{MOST} clones of this server are kept: shred items that are over")
            taken = revert.take(folder, settings.state, now + settings.snapshot_ms / 1000)
            return Told(taken.token, taken.why[:MAX_TEXT])
        case "settle":
            return Told(why=revert.settle(folder, order.token, now + LOOK_S)[:MAX_TEXT])
        case "forget":
            revert.forget(folder, order.token)
            return Told()
        case "plan":
            found = revert.plan(folder, order.token, now + LOOK_S)
        case "revert":
            found = revert.revert(folder, order.token, now + REVERT_S)
    changes = tuple(Write(each.path[:MAX_TEXT], each.change, each.mode) for each in found.changes[:MAX_CHANGES])
    return Told(why=found.refused[:MAX_TEXT], changes=changes, more=len(found.changes) - len(changes), done=found.done)


def sweep(folder: Path) -> None:
    """Of a keeper that starts: what nobody can put back any more. Calls that ran while the one before died have left no record of what they did."""
    for record in (folder / "reverts").glob("*"):
        if not (record / "after.json").exists() or time.time() - record.stat().st_mtime > KEPT_S:
            shutil.rmtree(record, ignore_errors=True)
