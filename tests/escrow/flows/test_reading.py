"""Messages out of the wire: MCP's three transports and the models' APIs, whole and in small segments."""

from __future__ import annotations

import json
from typing import Any

import pytest

from escrow import jsonrpc
from escrow.events import Direction, TcpSlice
from escrow.flows.flows import Flows
from escrow.flows.messages import Answered, Api, Asked, Completion, Message, Plain, Prompt, Rpc, ToolCall, ToolOffered, ToolResult, Unread, Unreadable
from escrow.flows.reading import Reading
from tests.escrow.flows.traffic import DOWN, UP, Talk, answer, connection, post, slice_of, stream

SIZES = [1, 3, 17, 1 << 14]


def messages(events: list[TcpSlice], reading: Reading | None = None) -> list[Message]:
    reading, flows = reading or Reading(1000), Flows()
    found = [*flows.feed(events), *flows.tick(10**12), *flows.close(10**12)]
    return [message for unit in found if (message := reading.read(unit)) is not None]


def rpc(found: list[Message]) -> list[tuple[Direction, str, int | str | None, str | None]]:
    """Direction, kind, id, and the method that it answers or asks."""
    out = []
    for each in found:
        if isinstance(each.content, Rpc):
            said, call = each.content.message, each.content.call
            method = getattr(said, "method", None) or (call.method if call else None)
            out.append((each.unit.direction, type(said).__name__, getattr(said, "id", None), method))
    return out


def ask(id: int | str, method: str, **params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


def reply(id: int | str, result: object = None) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "result": result or {}}).encode()


def event(data: bytes, name: str = "message") -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


SESSION = "Mcp-Session-Id: s1\r\n"


@pytest.mark.parametrize("size", SIZES)
def test_the_http_sse_pair(size: int) -> None:
    """The address comes as the first event; what is posted there is answered on the stream of the other connection."""
    a, b = Talk(connection(1), size), Talk(connection(2), size)
    a.say(UP, b"GET /sse HTTP/1.1\r\nHost: a\r\n\r\n").say(DOWN, stream(event(b"/messages/?session_id=7", "endpoint"), end=False))
    first = len(a.events)
    b.say(UP, post(ask(0, "initialize"), target="/messages/?session_id=7")).say(DOWN, answer(b"Accepted", "", status=202))
    for data in (event(reply(0)), event(ask(0, "sampling/createMessage"))):  # the server's own request may have the same id
        a.say(DOWN, b"%x\r\n%b\r\n" % (len(data), data))
    b.say(UP, post(reply(0), target="/messages/?session_id=7")).say(DOWN, answer(b"", "", status=202))
    assert rpc(messages([*a.events[:first], *b.events, *a.events[first:]])) == [
        (UP, "Request", 0, "initialize"),
        (UP, "Response", 0, None),
        (DOWN, "Response", 0, "initialize"),
        (DOWN, "Request", 0, "sampling/createMessage"),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_streamable_http_with_a_session(size: int) -> None:
    """The session is named in the answer to `initialize`; the server asks on the GET stream and is answered on another connection."""
    one, two = Talk(connection(1), size), Talk(connection(2), size)
    one.say(UP, post(ask(0, "initialize"))).say(DOWN, stream(event(reply(0)), headers=SESSION))
    one.say(UP, post(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode(), SESSION)).say(DOWN, answer(b"", "", status=202))
    two.say(UP, f"GET /mcp HTTP/1.1\r\nHost: a\r\n{SESSION}\r\n".encode()).say(DOWN, stream(event(ask(1, "elicitation/create")), end=False))
    one.say(UP, post(ask(1, "tools/call", name="x"), SESSION)).say(DOWN, stream(b": ping\n\n", event(reply(1))))
    three = Talk(connection(3), size).say(UP, post(reply(1), SESSION)).say(DOWN, answer(b"", "", status=202))
    assert rpc(messages([*one.events, *two.events, *three.events])) == [
        (UP, "Request", 0, "initialize"),
        (DOWN, "Response", 0, "initialize"),
        (UP, "Notification", None, "notifications/initialized"),
        (UP, "Request", 1, "tools/call"),
        (DOWN, "Response", 1, "tools/call"),
        (DOWN, "Request", 1, "elicitation/create"),
        (UP, "Response", 1, "elicitation/create"),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_the_stateless_era(size: int) -> None:
    headers = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n"
    talk = Talk(size=size).say(UP, post(ask("1", "tools/call"), headers)).say(DOWN, answer(reply("1")))
    talk.say(UP, post(ask(1, "tools/list"), headers)).say(DOWN, stream(event(b'{"jsonrpc":"2.0","method":"notifications/progress"}'), event(reply(1))))
    assert rpc(messages(talk.close().events)) == [
        (UP, "Request", "1", "tools/call"),
        (DOWN, "Response", "1", "tools/call"),
        (UP, "Request", 1, "tools/list"),
        (DOWN, "Notification", None, "notifications/progress"),
        (DOWN, "Response", 1, "tools/list"),
    ]


def test_a_number_is_no_string_and_two_connections_share_no_id() -> None:
    one, two = Talk(connection(1)), Talk(connection(2))
    one.say(UP, post(ask(1, "a")))
    two.say(UP, post(ask(1, "b"))).say(DOWN, answer(reply("1")))
    assert rpc(messages([*one.events, *two.events]))[2:] == [(DOWN, "Response", "1", None)]
    two.say(UP, post(ask(2, "c"))).say(DOWN, answer(reply(2)))
    one.say(DOWN, answer(reply(1)))
    assert [found[3] for found in rpc(messages([*one.events, *two.events])) if found[1] == "Response"] == ["a", None, "c"]


def test_open_calls_are_bounded_and_the_oldest_are_counted() -> None:
    reading = Reading(4)
    talk = Talk()
    for number in range(10):
        talk.say(UP, post(ask(number, "m")))
    messages(talk.events, reading)
    assert len(reading.pairs) == 4 and reading.pairs.counts.dropped == 6


def test_what_cannot_be_read_in_one_way_is_unsure() -> None:
    for body in (b'{"jsonrpc":"2.0","id":1,"result":1,"result":2}', b'[{"jsonrpc":"2.0","id":1,"result":1}]', b"{", b'{"id":1,"result":1}'):
        found = messages(Talk().say(UP, post(ask(1, "m"))).say(DOWN, answer(body)).close().events)[-1]
        assert isinstance(found.content, Unreadable) and found.why and not found.complete


def test_other_bodies_are_told_by_their_type() -> None:
    found = messages(Talk().say(UP, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").say(DOWN, answer(b"<p>", "Content-Type: text/html; charset=x\r\n")).close().events)
    assert [each.content for each in found] == [Plain("text/html")]


# --- models ---

TOOL = {"name": "get_weather", "description": "…", "input_schema": {"type": "object"}}
FUNCTION = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
CHAT_ASKED = {
    "model": "gpt-x",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}, {"type": "image_url", "image_url": {"url": "data:"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"a":1}'}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "12 degrees"},
    ],
    "tools": [FUNCTION],
    "stream": True,
}
CHAT_PARTS = (
    ToolOffered("get_weather", FUNCTION),
    Prompt("system", "Be brief."),
    Prompt("user", "Weather?"),
    Unread("image_url"),
    ToolCall("c1", "get_weather", '{"a":1}'),
    ToolResult("c1", "12 degrees"),
)
CHAT_ANSWER = {
    "id": "x", "object": "chat.completion", "model": "gpt-x",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "It is", "tool_calls": [
        {"id": "c2", "type": "function", "function": {"name": "get_weather", "arguments": '{"b":2}'}}]}, "finish_reason": "tool_calls"}],
}  # fmt: skip
CHAT_ANSWER_PARTS = (Completion("It is"), ToolCall("c2", "get_weather", '{"b":2}'))


def chat_chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "model": "gpt-x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


CHAT_STREAM: list[Any] = [
    chat_chunk({"role": "assistant", "content": ""}),
    chat_chunk({"content": "It "}),
    chat_chunk({"content": "is"}),
    chat_chunk({"tool_calls": [{"index": 0, "id": "c2", "type": "function", "function": {"name": "get_weather", "arguments": ""}}]}),
    chat_chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"b"'}}]}),
    chat_chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":2}"}}]}),
    chat_chunk({}, "tool_calls"),
    "[DONE]",
]
RESPONSES_ASKED = {
    "model": "gpt-x",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "12 degrees"},
    ],
    "tools": [{"type": "function", "name": "get_weather", "parameters": {}}],
}
RESPONSES_PARTS = (
    ToolOffered("get_weather", {"type": "function", "name": "get_weather", "parameters": {}}),
    Prompt("system", "Be brief."),
    Prompt("user", "Weather?"),
    ToolCall("c1", "get_weather", '{"a":1}'),
    ToolResult("c1", "12 degrees"),
)
RESPONSES_OUTPUT = [
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is"}]},
    {"type": "function_call", "call_id": "c2", "name": "get_weather", "arguments": '{"b":2}'},
]
RESPONSES_ANSWER = {"object": "response", "model": "gpt-x", "output": RESPONSES_OUTPUT}
RESPONSES_STREAM: list[Any] = [
    {"type": "response.created", "response": {"object": "response", "model": "gpt-x", "output": []}},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}},
    {"type": "response.output_text.delta", "output_index": 0, "delta": "It "},
    {"type": "response.output_text.delta", "output_index": 0, "delta": "is"},
    {"type": "response.output_item.done", "output_index": 0, "item": RESPONSES_OUTPUT[0]},
    {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"b":2}'},
    {"type": "response.output_item.done", "output_index": 1, "item": RESPONSES_OUTPUT[1]},
    {"type": "response.completed", "response": RESPONSES_ANSWER},
]
ANTHROPIC_ASKED = {
    "model": "claude-x",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "Be brief."}],
    "tools": [TOOL],
    "messages": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "12 degrees"}, {"type": "image"}]}]},
    ],
}
ANTHROPIC_PARTS = (
    ToolOffered("get_weather", TOOL),
    Prompt("system", "Be brief."),
    Prompt("user", "Weather?"),
    ToolCall("c1", "get_weather", '{"a": 1}'),
    ToolResult("c1", "12 degrees"),
    Unread("image"),
)
ANTHROPIC_ANSWER = {
    "type": "message", "role": "assistant", "model": "claude-x",
    "content": [{"type": "text", "text": "It is"}, {"type": "tool_use", "id": "c2", "name": "get_weather", "input": {"b": 2}}],
}  # fmt: skip
ANTHROPIC_STREAM: list[Any] = [
    {"type": "message_start", "message": {"type": "message", "role": "assistant", "model": "claude-x", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "It "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "is"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "c2", "name": "get_weather", "input": {}}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"b": '}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "2}"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
    {"type": "message_stop"},
]
ANTHROPIC_ANSWER_PARTS = (Completion("It is"), ToolCall("c2", "get_weather", '{"b": 2}'))
MODELS = [
    pytest.param(Api.OPENAI_CHAT, CHAT_ASKED, CHAT_PARTS, CHAT_ANSWER, CHAT_STREAM, CHAT_ANSWER_PARTS, id="chat"),
    pytest.param(Api.OPENAI_RESPONSES, RESPONSES_ASKED, RESPONSES_PARTS, RESPONSES_ANSWER, RESPONSES_STREAM, CHAT_ANSWER_PARTS, id="responses"),
    pytest.param(Api.ANTHROPIC, ANTHROPIC_ASKED, ANTHROPIC_PARTS, ANTHROPIC_ANSWER, ANTHROPIC_STREAM, ANTHROPIC_ANSWER_PARTS, id="anthropic"),
]


def streamed(values: list[Any]) -> list[bytes]:
    found = []
    for value in values:
        name = b"event: %b\n" % value["type"].encode() if isinstance(value, dict) and "type" in value else b""
        found.append(name + b"data: " + (value if isinstance(value, str) else json.dumps(value)).encode() + b"\n\n")
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("api, asked, parts, answer_, stream_, said", MODELS)
def test_a_models_api_whole_and_streamed(api: Api, asked: Any, parts: Any, answer_: Any, stream_: Any, said: Any, size: int) -> None:
    talk = Talk(size=size).say(UP, post(json.dumps(asked).encode())).say(DOWN, answer(json.dumps(answer_).encode()))
    talk.say(UP, post(json.dumps(asked).encode())).say(DOWN, stream(*streamed(stream_)))
    found = messages(talk.close().events)
    question, model = Asked(api, asked["model"], parts), asked["model"]
    assert [each.content for each in found] == [question, Answered(api, model, said), question, Answered(api, model, said)]
    assert all(each.complete for each in found)


@pytest.mark.parametrize("api, asked, parts, answer_, stream_, said", MODELS)
def test_a_streamed_answer_that_is_cut_off_or_lacks_an_event_is_incomplete(api: Api, asked: Any, parts: Any, answer_: Any, stream_: Any, said: Any) -> None:
    cut = streamed(stream_[:4])
    talk = Talk().say(UP, post(json.dumps(asked).encode())).say(DOWN, stream(*cut))
    found = messages(talk.close().events)[-1]
    assert isinstance(found.content, Answered) and not found.complete
    link, data = connection(), stream(*streamed(stream_))
    at = data.index(streamed(stream_)[2]) + 10
    base = Talk(link).say(UP, post(json.dumps(asked).encode()))
    events = [*base.events, slice_of(link, DOWN, 0, data[:at]), slice_of(link, DOWN, at + 5, data[at + 5 :])]
    found = [each for each in messages(events) if isinstance(each.content, Answered)][-1]
    assert not found.complete


ODD: list[Any] = [
    1,
    "x",
    [],
    {},
    {"model": 1},
    {"model": "m", "messages": [1, None, {"role": 7, "content": {"a": 1}}]},
    {"model": "m", "input": [{"type": []}, 3]},
]


@pytest.mark.parametrize("value", ODD)
def test_odd_json_is_no_crash(value: Any) -> None:
    body = json.dumps(value).encode()
    found = messages(Talk().say(UP, post(body)).say(DOWN, answer(body)).say(UP, post(body)).say(DOWN, stream(b"data: " + body + b"\n\n")).close().events)
    assert found


ODD_EVENTS: list[Any] = [
    1,
    [],
    {"type": "content_block_start", "index": 1, "content_block": 7},
    {"choices": [{"index": "x", "delta": [], "tool_calls": 1}]},
    {"choices": 1},
    {"type": "response.x.delta", "output_index": 0, "delta": 9},
]


@pytest.mark.parametrize("first", [CHAT_STREAM[0], RESPONSES_STREAM[0], ANTHROPIC_STREAM[0]])
@pytest.mark.parametrize("odd", ODD_EVENTS)
def test_odd_events_in_a_models_stream_are_no_crash(first: Any, odd: Any) -> None:
    found = messages(Talk().say(UP, post(b"{}")).say(DOWN, stream(*streamed([first]), b"data: " + json.dumps(odd).encode() + b"\n\n")).close().events)
    assert isinstance(found[-1].content, Answered) and not found[-1].complete


def test_a_message_of_json_rpc_in_a_models_stream_is_not_swallowed() -> None:
    talk = Talk().say(UP, post(b"{}")).say(DOWN, stream(*streamed([CHAT_STREAM[0]]), event(reply(5)))).close()
    assert [found[1:3] for found in rpc(messages(talk.events))] == [("Response", 5)]


def test_typed_ids_are_those_of_the_gate() -> None:
    message = jsonrpc.read(reply("1"))
    assert isinstance(message, jsonrpc.Response) and message.id == "1"
