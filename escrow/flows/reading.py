"""Units in, messages out: what HTTP carried, read as JSON-RPC and as the APIs of language models. Recognised by content, not by path."""

from __future__ import annotations

from dataclasses import dataclass

from escrow import jsonrpc
from escrow.events import Direction
from escrow.flows import llm
from escrow.flows.messages import Content, Message, Plain, Rpc, Unreadable
from escrow.flows.pairs import Pairs
from escrow.flows.unit import Source, Unit, UnitKind
from escrow.http.head import BadMessage

UNFINISHED = "the stream ended before the model's answer did"
_MOST_STREAMS = 4096


@dataclass(slots=True)
class _Stream:
    """A streamed answer of a model's. why: why it is not complete, by what its events lacked."""

    reader: llm.Streamed
    why: str = ""


class Reading:
    """Feed units in order. calls: how many JSON-RPC calls may be open."""

    def __init__(self, calls: int) -> None:
        self.pairs = Pairs(calls)
        self._streams: dict[tuple[Source, int], _Stream] = {}

    def read(self, unit: Unit) -> Message | None:
        """The message that a unit is, or completes; None where it is none yet."""
        key = (unit.source, unit.exchange)
        match unit.kind:
            case UnitKind.FIRST | UnitKind.OPAQUE:
                return None
            case UnitKind.BROKEN:
                if (broken := self._streams.get(key)) is not None:
                    broken.why = broken.why or unit.why
                return Message(unit, Unreadable(unit.why), unit.why)
            case UnitKind.STREAM_END:
                return self._ended(unit)
            case UnitKind.EVENT if unit.event == "endpoint":
                self.pairs.endpoint(unit)
                return Message(unit, Plain("text/event-stream"), unit.why)
            case UnitKind.EVENT if key in self._streams:
                return self._event(unit, self._streams[key])
        try:
            value = jsonrpc.parse(unit.raw)
        except jsonrpc.NotJson as error:
            if unit.kind is UnitKind.EVENT or not _is_json(unit):
                return Message(unit, Plain(_media(unit)), unit.why)
            return Message(unit, Unreadable(str(error)), unit.why or str(error))
        except jsonrpc.Unreadable as error:
            return Message(unit, Unreadable(str(error)), unit.why or str(error))
        if unit.kind is UnitKind.EVENT and (reader := llm.streamed(value)) is not None:
            if len(self._streams) >= _MOST_STREAMS:
                del self._streams[next(iter(self._streams))]
            self._streams[key] = _Stream(reader)
            return self._event(unit, self._streams[key])
        if jsonrpc.is_message(value):
            return self._rpc(unit, value)
        model = llm.asked(value) if unit.direction is Direction.TO_SERVER else llm.answered(value)
        content: Content = model if model is not None else Plain(_media(unit))
        return Message(unit, content, unit.why)

    def _rpc(self, unit: Unit, value: object) -> Message:
        try:
            message = jsonrpc.classify(value, unit.raw)
        except jsonrpc.Unreadable as error:
            return Message(unit, Unreadable(str(error)), unit.why or str(error))
        call = None
        if isinstance(message, jsonrpc.Request):
            self.pairs.asked(message, unit)
        elif isinstance(message, jsonrpc.Response):
            call = self.pairs.answered(message, unit)
        return Message(unit, Rpc(message, call), unit.why)

    def _event(self, unit: Unit, stream: _Stream) -> Message | None:
        """An event of a model's streamed answer."""
        stream.why = stream.why or unit.why
        try:
            value = jsonrpc.parse(unit.raw)
        except jsonrpc.NotJson:
            if unit.raw.strip() != b"[DONE]":
                stream.why = stream.why or "an event of it is no JSON"
            return None
        except jsonrpc.Unreadable as error:
            stream.why = stream.why or str(error)
            return None
        if isinstance(value, dict) and not jsonrpc.is_message(value):
            stream.reader.event(value)
            return None
        return self._rpc(unit, value)

    def _ended(self, unit: Unit) -> Message | None:
        stream = self._streams.pop((unit.source, unit.exchange), None)
        self.pairs.ended(unit)
        if stream is not None:
            why = stream.why or unit.why or ("" if stream.reader.over else UNFINISHED)
            return Message(unit, stream.reader.answered(), why)
        return Message(unit, Unreadable(unit.why), unit.why) if unit.why else None


def _media(unit: Unit) -> str:
    try:
        found = unit.head.get(b"content-type") if unit.head is not None else None
    except BadMessage:
        return ""
    return (found or b"").split(b";")[0].strip().lower().decode("latin-1")[:128]


def _is_json(unit: Unit) -> bool:
    return _media(unit).endswith(("/json", "+json"))
