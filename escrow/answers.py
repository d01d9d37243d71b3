"""What goes out when it is not a release: one total table, kind × transport × why.

Pure. The words are ours and fixed; nothing a server wrote is ever quoted. The transport changes only how an answer is carried
(a body, an event, another connection), which is the relay's business; that every transport carries every answer is tested there.

Sources: MCP "Tools, error handling" (a result with `isError` reaches the model, a JSON-RPC error does not);
https://www.jsonrpc.org/specification section 5.1 (-32000 to -32099 are the implementation's own).
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from escrow.call import Kind


class Why(StrEnum):
    """Why a message does not go out as it is."""

    HELD = "held"
    """It is held past the time its client can wait; the same call made again collects it."""
    DENIED = "denied"
    EXPIRED = "expired"
    LOCKED = "locked"
    """A person has locked the server: no call goes through until they unlock it."""
    FORBIDDEN = "forbidden"
    """The policy does not allow this tool."""


CODES = {Why.HELD: -32090, Why.DENIED: -32091, Why.EXPIRED: -32092, Why.LOCKED: -32094, Why.FORBIDDEN: -32095}
"""JSON-RPC error codes, fixed."""

UNREADABLE = -32093
"""The server's answer could not be read in one way only, or passed a bound."""

_TEXT = {
    Why.HELD: (
        "Holdfast, the firewall in front of this server, holds this result until a person has reviewed it. The call itself has run: do not "
        "assume that it failed. To collect the result, make exactly the same call again later; it will not run twice."
    ),
    Why.DENIED: "Holdfast, the firewall in front of this server, did not release this result. Making the same call again will not change that.",
    Why.EXPIRED: "Holdfast, the firewall in front of this server, held this result and nobody released it in time. It is not available any more.",
    Why.LOCKED: "Holdfast, the firewall in front of this server, lets no call through: a person has locked it. The call did not run.",
    Why.FORBIDDEN: "Holdfast, the firewall in front of this server, does not allow this tool. The call did not run, and making it again will not change that.",
}

_REQUEST_TEXT = {
    Why.HELD: (
        "Holdfast, the firewall in front of this server, holds this call until a person has reviewed its arguments. It has not run. To have it run "
        "once it is approved, make exactly the same call again later."
    ),
    Why.DENIED: "Holdfast, the firewall in front of this server, did not let this call through. It did not run. Making it again will not change that.",
    Why.EXPIRED: "Holdfast, the firewall in front of this server, held this call and nobody approved it in time. It did not run.",
}
"""The same where the request itself was held."""


def result_for(kind: Kind, why: Why, item_id: str, call_id: int | str, *, of_request: bool = False) -> bytes:
    """The JSON-RPC message that answers a client's request instead of its result.

    Args:
        kind: a kind of result (neither a server's request nor a notification: those are answered by `error_for_server`, or by nothing).
        item_id: "" where nothing is held.
        of_request: the call itself was held, not its result.
    """
    if kind in (Kind.SERVER_REQUEST, Kind.NOTIFICATION):
        raise ValueError(f"{kind.value} is no answer to a client")
    words = (_REQUEST_TEXT if of_request else _TEXT)[why]
    if kind is Kind.TOOL_CALL:
        meta = {"holdfast/escrow": item_id, "holdfast/state": why.value} if item_id else {"holdfast/state": why.value}
        result = {
            "content": [{"type": "text", "text": f"{words} Escrow id: {item_id}." if item_id else words}],
            "isError": True,
            "resultType": "complete",
            "_meta": meta,
        }
        return _dump({"jsonrpc": "2.0", "id": call_id, "result": result})
    return error(call_id, CODES[why], words, {"escrow_id": item_id, "state": why.value} if item_id else {"state": why.value})


def error_for_server(why: Why, item_id: str, request_id: int | str) -> bytes:
    """The error that answers a server's own request (sampling, elicitation, roots) which the client never saw."""
    return error(request_id, CODES[why], "Holdfast did not pass this request to the client.", {"escrow_id": item_id, "state": why.value})


def error(call_id: int | str | None, code: int, text: str, data: dict[str, Any] | None = None) -> bytes:
    """A JSON-RPC error message in our words."""
    body: dict[str, Any] = {"code": code, "message": text}
    if data is not None:
        body["data"] = data
    return _dump({"jsonrpc": "2.0", "id": call_id, "error": body})


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
