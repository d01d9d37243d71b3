"""The store, as custody uses it: what it must offer, and the thread it runs in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from enforcer.store import StoreError
from escrow.item import Item, Payload, State

_T = TypeVar("_T")


class StoreFailed(Exception):
    """The store refused a write: what depended on it must not take effect."""


class Custodian(Protocol):
    """The part of the store that custody uses; `enforcer.store.Store` is one."""

    def put(self, item: Item, payload: Payload) -> bytes: ...
    def secret(self, item_id: str) -> bytes | None: ...
    def update(self, item: Item) -> None: ...
    def replace_payload(self, item: Item, payload: Payload) -> None: ...
    def get(self, item_id: str) -> Item | None: ...
    def list_items(self, states: tuple[State, ...], limit: int, before: tuple[float, str] | None = None) -> list[Item]: ...
    def counts(self) -> dict[str, int]: ...
    def payload(self, item_id: str) -> Payload | None: ...
    def shred(self, item: Item) -> None: ...
    def tools(self, server: str) -> list[dict[str, Any]]: ...
    def trusted(self, server: str) -> tuple[frozenset[tuple[str, str]], bool]: ...
    def offer(self, server: str, tools: list[tuple[str, str, str]], at: float) -> None: ...
    def withdraw(self, server: str, tools: list[tuple[str, str]]) -> None: ...
    def offered(self, server: str) -> list[tuple[str, str, str]]: ...
    def trust(self, server: str, tools: list[tuple[str, str, str]], by: str, at: float, complete: bool) -> None: ...
    def locked(self) -> tuple[str, str, float] | None: ...
    def lock(self, by: str, why: str, at: float) -> None: ...
    def unlock(self) -> None: ...


class StoreThread:
    """The one thread that uses the store."""

    def __init__(self, store: Custodian) -> None:
        self.store = store
        self._thread = ThreadPoolExecutor(1, "store")
        self._closed = False

    async def __call__(self, function: Callable[..., _T], *args: Any) -> _T:
        """Run one of the store's methods there. Raises StoreFailed."""
        if self._closed:
            raise StoreFailed("Holdfast is stopping")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args))
        except StoreError as error:
            raise StoreFailed(str(error)) from None

    def close(self) -> None:
        """Nothing is read or written any more; what is under way is finished first."""
        self._closed = True
        self._thread.shutdown(wait=True)
