"""Small messages seen before, but for their whole numbers: read once, and from then on only their numbers are.

Pure. A shape is a message cut at its numbers. A message is of a shape where it is the same bytes but for those, and each of them is a plain
whole one: then JSON cuts it into the same tokens, and whatever a full reading says of it but for the numbers, it has said before: that it is
JSON-RPC, that no key comes twice, its method, its name, and where its id stands. Floats, exponents, -0 and integers of more than 15 digits
are never plain: they have other forms in RFC 8785. A message whose id is text is of no shape, since texts stand in a shape as they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

import rfc8785

from escrow import jsonrpc
from escrow.call import canonical, name_of

MOST_BYTES: Final = 4096
"""Longest message that is of a shape."""
MOST_NUMBERS: Final = 32
MOST_KEPT_BYTES: Final = 8 << 20
"""All shapes together, each by the bytes of its message; it keeps about three times that."""
MOST_SEEN: Final = 8192
"""Messages remembered as seen once, by a hash: only what comes again is worth a shape."""

_PLAIN: Final = re.compile(rb"0|-?[1-9][0-9]{0,14}")
_TOKENS: Final = re.compile(rb'((?:"(?:[^"\\]++|\\.)*+"|[^"\d-]++)++)|([\d-]++)', re.DOTALL)
"""Between the numbers, strings whole; and the numbers, a float as two with its point between."""
_FIRST: Final = 10**14
"""Plain, and as many digits as a plain number has at most: numbers that say which is which."""


class Shape:
    """See the module. is_error: of a response. name: what a request names (`escrow.call.name_of`)."""

    __slots__ = ("_args", "_first", "_id_at", "_pick", "_rest", "is_error", "kind", "method", "name")

    def __init__(self, pieces: list[bytes], message: jsonrpc.Message) -> None:
        """message: that of these pieces with the numbers from `_FIRST` on between them."""
        self._first, self._rest = pieces[0], tuple(pieces[1:])
        self.kind = type(message)
        self.method = self.name = ""
        self.is_error = False
        self._id_at = -1
        self._args = b""
        self._pick: Callable[[Sequence[bytes]], bytes | tuple[bytes, ...]] = _nothing
        if isinstance(message, jsonrpc.Response):
            self.is_error = message.is_error
        else:
            self.method = message.method
        if not isinstance(message, jsonrpc.Notification):
            assert isinstance(message.id, int)
            self._id_at = message.id - _FIRST
        if isinstance(message, jsonrpc.Request):
            self.name = name_of(message)
            self._args, order = _template(canonical({key: value for key, value in message.params.items() if key != "_meta"}))
            if order:
                self._pick = itemgetter(*order)

    def numbers(self, raw: bytes) -> list[bytes] | None:
        """The numbers of a message of this shape, in their order; None where it is not of it."""
        if not raw.startswith(self._first):
            return None
        found: list[bytes] = []
        at = len(self._first)
        for piece in self._rest:
            number = _match(raw, at)
            if number is None:
                return None
            digits: bytes = number[0]
            at += len(digits)
            if not raw.startswith(piece, at):
                return None
            at += len(piece)
            found.append(digits)
        return found if at == len(raw) else None

    def message(self, raw: bytes, numbers: list[bytes]) -> jsonrpc.Message:
        """The message that these bytes are; what depends on more than its id is read when somebody asks for it."""
        if self.kind is jsonrpc.Request:
            return jsonrpc.Request(int(numbers[self._id_at]), self.method, None, raw, self, numbers)
        if self.kind is jsonrpc.Response:
            return jsonrpc.Response(int(numbers[self._id_at]), None, self.is_error, raw, self)
        return jsonrpc.Notification(self.method, None, raw, self)

    def arguments_digest(self, numbers: Sequence[bytes]) -> str:
        """`escrow.call.arguments_digest` of a request of this shape."""
        return hashlib.sha256(self._args % self._pick(numbers)).hexdigest()


_match = _PLAIN.match


def _nothing(_numbers: Sequence[bytes]) -> bytes | tuple[bytes, ...]:
    return ()


def shape_of(message: jsonrpc.Message) -> Shape | None:
    """The shape of a message; None where it has none."""
    raw = message.raw
    if len(raw) > MOST_BYTES or not (isinstance(message, jsonrpc.Notification) or type(message.id) is int):
        return None
    pieces: list[bytes] = []
    for piece, number in _TOKENS.findall(raw):
        if piece:
            if pieces and piece[:1] in b".eE":
                return None  # the number before it goes on here
            pieces.append(piece)
        elif _PLAIN.fullmatch(number) is None:
            return None
    if len(pieces) > MOST_NUMBERS + 1:
        return None
    told = [piece + b"%d" % (_FIRST + at) for at, piece in enumerate(pieces[:-1])]
    try:
        return Shape(pieces, jsonrpc.read(b"".join([*told, pieces[-1]])))
    except (rfc8785.CanonicalizationError, UnicodeError):  # its arguments have no canonical form, and their digest is made otherwise
        return None


def _template(text: bytes) -> tuple[bytes, tuple[int, ...]]:
    """A canonical text with its numbers cut out, for `%`; and which of the message's numbers stands in each place."""
    tokens = _TOKENS.findall(text)
    return b"".join(b"%b" if number else piece.replace(b"%", b"%%") for piece, number in tokens), tuple(int(n) - _FIRST for _, n in tokens if n)


class Shapes:
    """The shapes of messages that came more than once; the first of those that differ in the digits of their texts alone stays."""

    def __init__(self) -> None:
        self._known: dict[bytes, Shape | None] = {}
        """By the message without any digit or minus; None for what came again and has no shape."""
        self._kept_bytes = 0
        self._seen: dict[int, None] = {}

    def get(self, raw: bytes) -> jsonrpc.Message | None:
        """What `jsonrpc.read` gives, where the bytes are of a known shape; it says so (`shape`)."""
        if len(raw) > MOST_BYTES:
            return None
        shape = self._known.get(raw.translate(None, _DIGITS))
        if shape is None or (numbers := shape.numbers(raw)) is None:
            return None
        return shape.message(raw, numbers)

    def learn(self, message: jsonrpc.Message) -> None:
        """A message was read whole. For long ones, which other threads read, this does nothing."""
        raw = message.raw
        if len(raw) > MOST_BYTES or (bare := raw.translate(None, _DIGITS)) in self._known:
            return
        key = hash(bare)
        if key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > MOST_SEEN:
                del self._seen[next(iter(self._seen))]
            return
        del self._seen[key]
        self._known[bare] = shape_of(message)
        self._kept_bytes += len(bare) + _OVERHEAD
        while self._kept_bytes > MOST_KEPT_BYTES:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._kept_bytes -= len(oldest) + _OVERHEAD


_DIGITS: Final = b"0123456789-"
_OVERHEAD: Final = 512
"""Bytes that a shape takes beside its message's, about."""
