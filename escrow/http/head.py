"""A head of an HTTP/1.1 message, parsed.

Pure. Sources: RFC 9112, RFC 9110.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Headers = tuple[tuple[bytes, bytes], ...]
"""Names in lower case, in order."""


class BadMessage(Exception):
    """The peer's bytes are no HTTP/1.1 message that all parsers read alike, or pass a bound. status: what to tell a client."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A request's or a response's head. `method`, `target` of the one, `status` of the other."""

    headers: Headers
    keep_alive: bool
    method: str = ""
    target: str = ""
    status: int = 0
    _values: dict[bytes, bytes | None] = field(init=False, repr=False)
    """None where a field comes twice with different values."""

    def __post_init__(self) -> None:
        values: dict[bytes, bytes | None] = {}
        for name, value in self.headers:
            values[name] = value if values.get(name, value) == value else None
        object.__setattr__(self, "_values", values)

    def get(self, name: bytes) -> bytes | None:
        """The only value of a field. Raises BadMessage where it comes twice with different values."""
        if name not in self._values:
            return None
        value = self._values[name]
        if value is None:
            raise BadMessage("a header that must come once comes twice")
        return value
