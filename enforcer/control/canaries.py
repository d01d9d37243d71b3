"""The canaries of this instance: kept as digests, told to the judge of outgoing messages, removed.

A token has 130 random bits, so that its plain SHA-256 tells nobody what it is. The token itself is made by the command line and is never here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from enforcer.control import asks
from escrow.canary import MOST, Canary

_KEPT: TypeAdapter[tuple[Canary, ...]] = TypeAdapter(tuple[Canary, ...])


class CanariesFailed(Exception):
    """The change is not made; `str()` says why."""


class Canaries:
    """path: the file they are kept in, 0600, replaced as a whole. watch: is told name by digest, at once and after every change."""

    def __init__(self, path: Path, watch: Callable[[Mapping[str, str]], None]) -> None:
        self._path, self._watch = path, watch
        self._canaries: tuple[Canary, ...] = ()
        self.problem: str | None = None
        """Why none is watched, or None."""
        try:
            self._canaries = _KEPT.validate_json(path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            self.problem = f"{path.name} cannot be read ({type(error).__name__}): no canary is watched until it is removed and they are made anew"
        self._tell()

    def all(self) -> tuple[Canary, ...]:
        return self._canaries

    def add(self, canary: Canary) -> None:
        """Raises CanariesFailed: it is not watched."""
        if self.problem is not None:
            raise CanariesFailed(self.problem)
        if any(canary.name == other.name for other in self._canaries):
            raise CanariesFailed("there is a canary with this name: remove it first, or take another name")
        if any(canary.digest == other.digest for other in self._canaries):
            raise CanariesFailed("this token is watched already, under another name")
        if len(self._canaries) >= MOST:
            raise CanariesFailed(f"there are {MOST} canaries: remove some")
        self._write((*self._canaries, canary))

    def remove(self, name: str) -> Canary:
        """Raises CanariesFailed: it is still watched, or never was."""
        found = next((canary for canary in self._canaries if canary.name == name), None)
        if found is None:
            raise CanariesFailed("there is no canary with this name")
        self._write(tuple(canary for canary in self._canaries if canary is not found))
        return found

    def _write(self, canaries: tuple[Canary, ...]) -> None:
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(_KEPT.dump_json(canaries))
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._path)
        except OSError as error:
            raise CanariesFailed(f"the canaries cannot be written: {error.strerror}") from None
        self._canaries = canaries
        self._tell()

    def _tell(self) -> None:
        self._watch({canary.digest: canary.name for canary in self._canaries})


def answer(canaries: Canaries, ask: asks.CanaryAdd | asks.CanaryList | asks.CanaryRemove, now: float) -> Any:
    """Raises CanariesFailed."""
    match ask:
        case asks.CanaryAdd():
            canary = Canary(ask.name, ask.digest, now)
            canaries.add(canary)
            return asdict(canary)
        case asks.CanaryRemove():
            return asdict(canaries.remove(ask.name))
        case asks.CanaryList():
            return [asdict(canary) for canary in canaries.all()]
