"""What is asked: the client's requests and everything else that can be held, by kind.

Pure. `Kind` decides which answer stands in for a message that is not released (`escrow.answers`).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import rfc8785

from escrow.jsonrpc import Request
from escrow.principal import Principal


class Transport(StrEnum):
    """MCP's three HTTP transports, by how an answer reaches the client."""

    HTTP_SSE = "http+sse"
    """2024-11-05: answers come on the stream of another connection."""
    SESSION = "streamable"
    """2025-03-26 to 2025-11-25: Streamable HTTP, with or without `Mcp-Session-Id`."""
    STATELESS = "stateless"
    """2026-07-28: one POST, one answer."""


class Kind(StrEnum):
    """What a held message is. The values stand in an item's JSON."""

    TOOL_CALL = "tools/call"
    RESOURCE = "resources/read"
    PROMPT = "prompts/get"
    LIST = "list"
    DISCOVER = "server/discover"
    INITIALIZE = "initialize"
    OTHER = "other"
    """The result of any other client request, or a result nobody asked for."""
    SERVER_REQUEST = "server-request"
    NOTIFICATION = "notification"


_KINDS = {
    "tools/call": Kind.TOOL_CALL,
    "resources/read": Kind.RESOURCE,
    "prompts/get": Kind.PROMPT,
    "tools/list": Kind.LIST,
    "resources/list": Kind.LIST,
    "resources/templates/list": Kind.LIST,
    "prompts/list": Kind.LIST,
    "server/discover": Kind.DISCOVER,
    "initialize": Kind.INITIALIZE,
}


@dataclass(slots=True)
class Call:
    """One client request, as far as escrow needs it.

    server: the policy's name of the guarded server.
    session: `Mcp-Session-Id`, or the endpoint of an HTTP+SSE session; None in the stateless era.
    id: the JSON-RPC id; never part of a call's identity, since a retry has a new one.
    name: tool, prompt or URI asked for; the method's own name where it names nothing.
    args_sha256: see `arguments_digest`.

    Final rather than frozen: there is one for every request, and setting ten attributes past a frozen class takes as long as reading one.
    """

    server: Final[str]
    principal: Final[Principal]
    session: Final[str | None]
    transport: Final[Transport]
    id: Final[int | str]
    method: Final[str]
    name: Final[str]
    args_sha256: Final[str]
    identity: tuple[str, str, str, str, str] = field(init=False, repr=False, compare=False)
    """What makes a later call a retry of this one: server, principal, method, name, digest of the arguments."""

    def __post_init__(self) -> None:
        self.identity = (self.server, self.principal.text, self.method, self.name, self.args_sha256)

    @property
    def kind(self) -> Kind:
        return _KINDS.get(self.method, Kind.OTHER)


def call_of(request: Request, *, server: str, principal: Principal, session: str | None, transport: Transport) -> Call:
    """The call that a client's request makes."""
    shape = request.shape
    if shape is not None:
        return Call(server, principal, session, transport, request.id, shape.method, shape.name, shape.arguments_digest(request.numbers))
    return Call(server, principal, session, transport, request.id, request.method, name_of(request), arguments_digest(request.params))


def name_of(request: Request) -> str:
    """The tool, prompt or URI that a request names, else its method."""
    named = request.params.get("uri" if request.method.startswith("resources/") else "name")
    return named if isinstance(named, str) else request.method


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"), check_circular=False).encode
_UNLIKE = re.compile(r"\d[.eE]|\d{16}")
"""What may be a number that RFC 8785 writes otherwise than Python does: a float, or an integer near 2^53. In a string it only costs time."""


def canonical(value: dict[str, Any]) -> bytes:
    """RFC 8785. The standard library's encoder writes the same, and faster, where all is ASCII (one order of keys) and no number is unlike."""
    try:
        text = _encode(value)
    except ValueError:
        return rfc8785.dumps(value)
    return text.encode() if text.isascii() and not _UNLIKE.search(text) else rfc8785.dumps(value)


NO_ARGUMENTS = hashlib.sha256(b"{}").hexdigest()
"""`arguments_digest` of params that say nothing."""


def arguments_digest(params: dict[str, Any]) -> str:
    """SHA-256, in hex, of the RFC 8785 canonical JSON of a request's params without `_meta`.

    RFC 8785 covers I-JSON only: integers past 2^53 and lone surrogates have no canonical form. Such params are digested over
    sorted ASCII JSON with a mark before it, so that they equal only themselves.
    """
    bare = params
    if "_meta" in params:
        bare = params.copy()
        del bare["_meta"]
    try:
        return hashlib.sha256(canonical(bare)).hexdigest()
    except (rfc8785.CanonicalizationError, UnicodeError):
        return hashlib.sha256(b"not I-JSON\0" + json.dumps(bare, sort_keys=True).encode()).hexdigest()
