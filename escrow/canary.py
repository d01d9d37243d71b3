"""Canaries: tokens that look like secrets, open nothing, and must never leave.

Pure. A token is `key_` and 32 letters of the base32 alphabet (RFC 4648, lower case): 26 of chance (130 bits) and 6 that check them (CRC-32),
so that no ordinary text is taken for one. Only the SHA-256 of those 32 letters is kept: whoever reads the state folder learns no
token. They are found without the prefix, in either case, inside longer runs, and with punctuation put between them.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "key_"
CHANCE_BYTES: Final = 17
"""Random bytes that a token is made of: 136 bits, of which 130 are used."""

CHANCE_CHARS: Final = 26
BODY_CHARS: Final = 32
MOST: Final = 1000
"""Canaries of one instance."""

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,31}$"
_RUN = re.compile(r"[A-Za-z2-7]{32,}")
_BREAKS = re.compile(r"[-_.:,;'\"\r\n\t]+")


@dataclass(frozen=True, slots=True)
class Canary:
    """What is kept of one. digest: SHA-256 of the token's letters, in hex. made_at: Unix seconds."""

    name: str
    digest: str
    made_at: float


@dataclass(frozen=True, slots=True)
class Sign:
    """A well-formed canary in a text, whosoever's. span: half-open, in code points; None where the text had to be closed up first."""

    digest: str
    span: tuple[int, int] | None


def make(chance: bytes) -> str:
    """A token out of `CHANCE_BYTES` random bytes."""
    if len(chance) != CHANCE_BYTES:
        raise ValueError(f"a canary needs {CHANCE_BYTES} random bytes")
    body = base64.b32encode(chance).decode("ascii").lower()[:CHANCE_CHARS]
    return PREFIX + body + _check(body)


def digest(token: str) -> str:
    """What is kept of a token. Raises ValueError where it is none."""
    body = token.lower().removeprefix(PREFIX)
    if len(body) != BODY_CHARS or not _RUN.fullmatch(body) or _check(body[:CHANCE_CHARS]) != body[CHANCE_CHARS:]:
        raise ValueError("it is no canary")
    return hashlib.sha256(body.encode("ascii")).hexdigest()


def find(text: str) -> list[Sign]:
    """Every well-formed canary in a text. Linear."""
    found = [Sign(name, span) for name, span in _runs(text)]
    if not found and len(text) > BODY_CHARS and _BREAKS.search(text):
        found = [Sign(name, None) for name, _ in _runs(_BREAKS.sub("", text))]
    return found


def _runs(text: str) -> list[tuple[str, tuple[int, int]]]:
    found: list[tuple[str, tuple[int, int]]] = []
    for match in _RUN.finditer(text):
        run = match.group().lower()
        raw = run.encode("ascii")
        for at in range(len(run) - BODY_CHARS + 1):
            # The first letter alone tells 31 of 32 windows apart, which keeps long runs of letters cheap.
            value = zlib.crc32(raw[at : at + CHANCE_CHARS])
            if _ALPHABET[value >> 27] == run[at + CHANCE_CHARS] and _letters(value) == run[at + CHANCE_CHARS : at + BODY_CHARS]:
                start = match.start() + at
                found.append((hashlib.sha256(raw[at : at + BODY_CHARS]).hexdigest(), (start, start + BODY_CHARS)))
    return found


_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"


def _check(body: str) -> str:
    return _letters(zlib.crc32(body.encode("ascii")))


def _letters(value: int) -> str:
    """The upper 30 bits of a 32-bit number, five to a letter."""
    return "".join(_ALPHABET[value >> shift & 31] for shift in (27, 22, 17, 12, 7, 2))
