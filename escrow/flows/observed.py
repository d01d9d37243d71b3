"""A message that was seen, and what was judged of it, as an entry of the evidence log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from escrow import jsonrpc
from escrow.call import name_of
from escrow.events import Connection, Direction, Endpoint
from escrow.evidence.entry import Observed
from escrow.flows.messages import Answered, Asked, Message, Rpc
from escrow.flows.unit import Unit
from escrow.http.head import BadMessage, Head
from escrow.trace import Traces, in_meta, trace_id
from escrow.verdict import Verdict


def observed(message: Message, verdicts: tuple[Verdict, ...], traces: Traces, process: str, *, content: bool) -> Observed:
    """process: the name of whose it was, "" where that is not known. content: audit mode: the message's own bytes go into the log."""
    unit, said = message.unit, message.content
    method = tool = ""
    params: Mapping[str, Any] = {}
    if isinstance(said, Rpc):
        asked = said.message if isinstance(said.message, jsonrpc.Request) else said.call
        method = asked.method if asked is not None else getattr(said.message, "method", "")
        tool = name_of(asked) if asked is not None else method
        params = asked.params if asked is not None else getattr(said.message, "params", {})
    elif isinstance(said, Asked | Answered):
        method, tool = said.api.value, said.model
    trace = traces.of(session(unit), in_meta(params), _named(unit.asked), _named(unit.head))
    pid = unit.process.pid if unit.process is not None else None
    direction: Literal["to-client", "to-server"] = "to-client" if unit.direction is Direction.TO_CLIENT else "to-server"
    kind = type(said).__name__.lower()
    where = shown(unit.connection)
    return Observed(trace, direction, kind, _safe(method), _safe(tool), pid, _safe(process), where, unit.raw, message.complete, verdicts, content)


def session(unit: Unit) -> tuple[object, ...]:
    """What stands for a message's session: its id where it names one, else the flow it was seen on."""
    for head in (unit.asked, unit.head):
        if head is not None and (named := _field(head, b"mcp-session-id")) is not None:
            return ("session", named)
    return ("flow", unit.source)


def shown(connection: Connection | None) -> str:
    """A connection for people: `client > server`."""
    return "not linked" if connection is None else f"{_end(connection.client)} > {_end(connection.server)}"


def _end(end: Endpoint) -> str:
    return f"[{end.address}]:{end.port}" if ":" in end.address else f"{end.address}:{end.port}"


def _named(head: Head | None) -> str | None:
    return None if head is None else trace_id(_field(head, b"traceparent"))


def _field(head: Head, name: bytes) -> str | None:
    try:
        found = head.get(name)
    except BadMessage:
        return None
    return None if found is None else found.decode("latin-1")


def _safe(text: str) -> str:
    """Without lone surrogates, which JSON can bring and no file can hold."""
    return text.encode("utf-8", "replace").decode()
