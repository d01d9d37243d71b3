"""JSON and JSON-RPC 2.0 as bytes on the wire: one strict reader for everything that is judged.

Pure. What cannot be read the same way by every peer is refused here, so that nobody downstream can be shown another value
than the judges saw: duplicate keys (servers take the last, others the first), NaN and Infinity, encodings other than UTF-8,
nesting past `MAX_DEPTH`, batches (no revision but 2025-03-26 allows them).

Sources: RFC 8259 (JSON), https://www.jsonrpc.org/specification, MCP 2024-11-05 … 2026-07-28 "Base protocol".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]  # documented nowhere, stable since 2.6; the C scanner
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from escrow.shape import Shape

MAX_DEPTH = 128
"""Deepest nesting of arrays and objects accepted, in levels."""


class Unreadable(ValueError):
    """The bytes are not one JSON-RPC message that all peers read alike. `str()` is our text, safe to show."""


class NotJson(Unreadable):
    """The bytes are not JSON by anybody's reading, so that they cannot carry a JSON-RPC message to a peer either."""


class Request:
    """{"jsonrpc", "id", "method", "params"?}: wants an answer.

    shape, numbers: where it was read by those alone (`escrow.shape`); its params are then read when they are asked for.
    """

    __slots__ = ("_params", "id", "method", "numbers", "raw", "shape")

    def __init__(
        self, id: int | str, method: str, params: dict[str, Any] | None, raw: bytes, shape: Shape | None = None, numbers: Sequence[bytes] = ()
    ) -> None:
        self.id: Final = id
        self.method: Final = method
        self._params = params
        self.raw: Final = raw
        self.shape: Final = shape
        self.numbers: Final = numbers

    @property
    def params(self) -> dict[str, Any]:
        if self._params is None:
            self._params = _params_in(self.raw)
        return self._params


class Notification:
    """{"jsonrpc", "method", "params"?}: wants none. shape: see `Request`."""

    __slots__ = ("_params", "method", "raw", "shape")

    def __init__(self, method: str, params: dict[str, Any] | None, raw: bytes, shape: Shape | None = None) -> None:
        self.method: Final = method
        self._params = params
        self.raw: Final = raw
        self.shape: Final = shape

    @property
    def params(self) -> dict[str, Any]:
        if self._params is None:
            self._params = _params_in(self.raw)
        return self._params


class Response:
    """{"jsonrpc", "id", "result" | "error"}. `id` is None where the server could not read ours (error only). shape: see `Request`.

    value: the result, or the error object.
    is_error: whether `value` is the error object.
    """

    __slots__ = ("_value", "id", "is_error", "raw", "shape")

    def __init__(self, id: int | str | None, value: Any, is_error: bool, raw: bytes, shape: Shape | None = None) -> None:
        self.id: Final = id
        self._value = _UNREAD if shape is not None else value
        self.is_error: Final = is_error
        self.raw: Final = raw
        self.shape: Final = shape

    @property
    def value(self) -> Any:
        if self._value is _UNREAD:
            self._value = parse(self.raw)["error" if self.is_error else "result"]
        return self._value


_UNREAD: Final = object()


def _params_in(raw: bytes) -> dict[str, Any]:
    params: dict[str, Any] = parse(raw).get("params", {})
    return params


Message = Request | Notification | Response


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Unreadable("an object in it names one key twice")
    return value


def _constant(name: str) -> NoReturn:
    raise Unreadable("NaN and Infinity are not JSON, though some parsers take them")


_decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]  # set by its constructor since 2.6


_NO_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[^"\[\]{}]++', re.DOTALL)
"""Strings (an unclosed one to the end, so that no text is read twice) and everything between brackets."""


def _too_deep(text: str) -> bool:
    """Whether nesting passes `MAX_DEPTH`. Counts brackets outside strings; linear, and skipped for texts with few brackets."""
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return False
    depth = 0
    for char in _NO_BRACKETS.sub("", text):
        if char in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        else:
            depth -= 1
    return False


def parse(raw: bytes) -> Any:
    """Read one JSON document strictly.

    Raises:
        NotJson: no JSON (or not UTF-8).
        Unreadable: JSON that peers may read differently, or nested too deep.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NotJson("it is not UTF-8") from None
    if _too_deep(text):
        raise Unreadable(f"it is nested deeper than {MAX_DEPTH} levels")
    try:
        document = text.strip(" \t\n\r")
        value, end = _scan(document, 0)  # what `decode` calls, without two searches for white space
        if end != len(document):
            raise NotJson("it is not JSON")
        return value
    except Unreadable:
        raise
    except StopIteration:
        raise NotJson("it is not JSON") from None
    except RecursionError:
        raise Unreadable(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError:
        raise NotJson("it is not JSON") from None
    except ValueError:  # int() past the interpreter's digit limit, where other parsers give a float
        raise Unreadable("a number in it has too many digits") from None


def read(raw: bytes) -> Message:
    """Read one JSON-RPC message.

    Raises:
        Unreadable: see `parse`; also JSON that is no JSON-RPC 2.0 message, or a batch.
    """
    return classify(parse(raw), raw)


def is_message(value: Any) -> bool:
    """Whether a JSON value is, or pretends to be, JSON-RPC: judged rather than passed through.

    Tolerant on purpose: clients differ in what they accept, so anything that has a JSON-RPC member of a message counts.
    """
    if isinstance(value, list):
        return any(is_message(item) for item in value)
    return isinstance(value, dict) and ("jsonrpc" in value or "method" in value or ("id" in value and ("result" in value or "error" in value)))


def classify(value: Any, raw: bytes) -> Message:
    """Type a parsed JSON value. Raises Unreadable where it is no single JSON-RPC 2.0 message."""
    if isinstance(value, list):
        raise Unreadable("JSON-RPC batches are not accepted")
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise Unreadable('it is no JSON-RPC message (no "jsonrpc": "2.0")')
    has_result, has_error, has_method = "result" in value, "error" in value, "method" in value
    if has_method + has_result + has_error != 1:
        raise Unreadable("it has not exactly one of method, result and error")
    if has_method:
        method, params = value["method"], value.get("params", {})
        if not isinstance(method, str) or not isinstance(params, dict):
            raise Unreadable("its method is no string or its params are no object")
        if "id" not in value:
            return Notification(method, params, raw)
        return Request(_id(value["id"]), method, params, raw)
    if has_error and value.get("id") is None:
        return Response(None, value["error"], True, raw)
    if "id" not in value:
        raise Unreadable("it is a response without an id")
    return Response(_id(value["id"]), value["error"] if has_error else value["result"], has_error, raw)


def _id(value: Any) -> int | str:
    """Ids are integers or strings; `1` and `"1"` are two ids, and True is none (MCP "Requests")."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Unreadable("its id is neither an integer nor a string")
    return value


def members(raw: bytes) -> dict[str, slice]:
    """Where the value of each member of the outermost object stands in `raw`, as byte slices.

    `raw` must have passed `parse` and be an object.
    """
    text = raw.decode("utf-8")
    spans: dict[str, slice] = {}
    at = text.index("{") + 1
    byte_at, text_at = 0, 0  # advance the byte offset together with the code point offset
    while True:
        at = _skip(text, at)
        if text[at] == "}":
            return spans
        if text[at] == ",":
            at = _skip(text, at + 1)
        key, at = scanstring(text, at + 1, True)
        at = _skip(text, _skip(text, at) + 1)
        _, end = _decoder.raw_decode(text, at)
        start = byte_at + len(text[text_at:at].encode())
        byte_at, text_at = start + len(text[at:end].encode()), end
        spans[key] = slice(start, byte_at)
        at = end


def with_id(raw: bytes, new_id: int | str) -> bytes:
    """The same message, byte for byte, but for its id. An error that has none is given one, as its first member."""
    span = members(raw).get("id")
    if span is None:
        after = raw.index(b"{") + 1
        return raw[:after] + b'"id":' + json.dumps(new_id).encode() + b"," + raw[after:]
    return raw[: span.start] + json.dumps(new_id).encode() + raw[span.stop :]


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\n\r":
        at += 1
    return at
