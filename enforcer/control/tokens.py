"""Supervisors' tokens: issued, kept as digests, found again, revoked.

A token is 256 random bits, so its plain SHA-256 is enough at rest: a slow hash protects secrets that can be guessed, and makes each
request of a stranger expensive. The file holds nothing that opens anything.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from escrow.supervisor.scopes import Scope

PREFIX = "hft_"
"""Lets secret scanners recognise one."""
MOST = 256


class TokensFailed(Exception):
    """The change is not made; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Token:
    """digest: SHA-256 of the secret, hex. acts_as: principals as items write them. Times are Unix seconds."""

    name: str
    digest: str
    scopes: frozenset[Scope]
    acts_as: tuple[str, ...]
    issued_by: str
    issued_at: float
    expires_at: float
    may_apply: bool = False

    def to_json(self, now: float) -> dict[str, Any]:
        """For views: nothing of the secret."""
        return {
            "name": self.name,
            "scopes": sorted(self.scopes),
            "acts_as": list(self.acts_as),
            "may_apply": self.may_apply,
            "issued_by": self.issued_by,
            "issued_at": self.issued_at,
            "expires_at": self.expires_at,
            "expired": self.expires_at <= now,
        }


_KEPT: TypeAdapter[tuple[Token, ...]] = TypeAdapter(tuple[Token, ...])


class Tokens:
    """path: the file they are kept in, 0600, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokens: tuple[Token, ...] = ()
        self.problem: str | None = None
        """Why no token is good at all, or None."""
        try:
            self._tokens = _KEPT.validate_json(path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            self.problem = f"{path.name} cannot be read ({type(error).__name__}): no token is good until it is removed and they are issued anew"

    def all(self) -> tuple[Token, ...]:
        return self._tokens

    def draft(
        self, name: str, scopes: frozenset[Scope], acts_as: tuple[str, ...], by: str, now: float, expires_at: float, may_apply: bool = False
    ) -> tuple[Token, str]:
        """A token that could be issued, and its secret, which is kept nowhere. `keep` issues it. Raises TokensFailed."""
        if Scope.APPROVE in scopes and not acts_as:
            raise TokensFailed("a token that may approve names whom it acts as: its own calls are not its to decide")
        if may_apply and Scope.POLICY not in scopes:
            raise TokensFailed("only a token with scope `policy` can apply what it proposes")
        if any(token.name == name for token in self._tokens):
            raise TokensFailed("there is a token with this name: revoke it first")
        if len(self._tokens) >= MOST:
            raise TokensFailed(f"there are {MOST} tokens: revoke some")
        if self.problem is not None:
            raise TokensFailed(self.problem)
        secret = PREFIX + secrets.token_urlsafe(32)
        return Token(name, _digest(secret), scopes, acts_as, by, now, expires_at, may_apply), secret

    def keep(self, token: Token) -> None:
        """Raises TokensFailed: it is not issued."""
        if any(other.name == token.name for other in self._tokens):
            raise TokensFailed("there is a token with this name: revoke it first")
        self._write((*self._tokens, token))

    def named(self, name: str) -> Token:
        """Raises KeyError."""
        found = next((token for token in self._tokens if token.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    def revoke(self, token: Token) -> None:
        """Raises TokensFailed: it is still good."""
        self._write(tuple(other for other in self._tokens if other.digest != token.digest))

    def find(self, secret: str) -> Token | None:
        """The token with this secret, expired or not. Takes the same time whichever it is, or none."""
        digest, found = _digest(secret), None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def _write(self, tokens: tuple[Token, ...]) -> None:
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(_KEPT.dump_json(tokens))
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # a token that was revoked does not come back with the power
            finally:
                os.close(folder)
        except OSError as error:
            raise TokensFailed(f"the tokens cannot be written: {error.strerror}") from None
        self._tokens = tokens


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
