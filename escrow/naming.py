"""What the name of a place says about the value in it.

Pure. Names come as JSON members or variables: `apiKey`, `DB_PASSWORD`, `X-Auth-Token`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
# fmt: off
_CREDENTIALS: Final = frozenset([
    "password", "passwd", "passphrase", "passcode", "pwd", "pass", "secret", "secrets", "credential", "credentials", "apikey", "accesskey",
    "secretkey", "privatekey", "authtoken", "accesstoken", "authorization", "bearer", "cookie", "jwt", "pat", "otp",
])
_KEYS: Final = frozenset([
    "api", "access", "private", "secret", "auth", "signing", "encryption", "account", "service", "master", "shared", "deploy", "subscription",
    "app", "client", "bearer",
])
_TURNERS: Final = frozenset([
    "page", "next", "prev", "previous", "continuation", "continue", "sync", "progress", "cursor", "start", "resume", "delta", "pagination",
    "cancel", "idempotency", "max",
])
# fmt: on
"""Before "token": what asks for the next page, or is no credential otherwise."""


@lru_cache(maxsize=8192)
def name_of(pointer: str) -> str:
    """The name of the nearest object member above a value: what its place calls it."""
    for token in reversed(pointer.split("/")[1:]):
        if not token.isdigit():
            return token.replace("~1", "/").replace("~0", "~")
    return ""


@lru_cache(maxsize=4096)
def names_page(name: str) -> bool:
    """Whether a name says that its value asks for the next page or names a request: as random as a key, and none."""
    words = [word.lower() for word in _WORDS.findall(name[:200])]
    return any(word in ("cursor", "page", "etag") for word in words) or (len(words) > 1 and words[-1] in ("token", "key") and words[-2] in _TURNERS)


@lru_cache(maxsize=4096)
def names_credential(name: str) -> bool:
    """Whether a name says that its value is a credential: `password`, `apiKey`, `X-Auth-Token`; not `next_page_token`, nor `key` alone."""
    words = [word.lower() for word in _WORDS.findall(name[:200])]
    if len(words) > 1 and words[-1] in ("value", "string", "text"):
        words.pop()
    if not words:
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last in ("token", "tokens"):
        return before not in _TURNERS and "page" not in words
    if last in ("key", "keys"):
        return before in _KEYS
    return last in _CREDENTIALS
