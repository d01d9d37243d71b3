"""Anthropic's messages API.

Pure. Source: docs.anthropic.com, API reference, "Messages" and "Streaming messages": message_start, content_block_start, …_delta, …_stop,
message_delta, message_stop.
"""

from __future__ import annotations

import json
from typing import Any

from escrow.flows.llm.parts import Pieces, listed, prompt, table, text, texts
from escrow.flows.messages import Answered, Api, Asked, Completion, Part, ToolCall, ToolOffered, ToolResult, Unread

_RESULTS = ("tool_result", "mcp_tool_result")
_CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")


def asked(value: dict[str, Any]) -> Asked | None:
    messages = value.get("messages")
    if not isinstance(messages, list) or not ("max_tokens" in value and ("system" in value or _blocks(messages) or _tools(value))):
        return None
    parts: list[Part] = [ToolOffered(text(table(each).get("name")), table(each)) for each in listed(value.get("tools"))]
    parts += prompt("system", value.get("system"))
    for message in map(table, messages):
        parts += _content(text(message.get("role")), message.get("content"))
    return Asked(Api.ANTHROPIC, text(value.get("model")), tuple(parts))


def _blocks(messages: list[Any]) -> bool:
    """Whether a message has a block that only this API has."""
    return any(table(block).get("type") in (*_RESULTS, *_CALLS, "thinking") for each in messages for block in listed(table(each).get("content")))


def _tools(value: dict[str, Any]) -> bool:
    return any("input_schema" in table(each) for each in listed(value.get("tools")))


def answered(value: dict[str, Any]) -> Answered | None:
    if value.get("type") != "message" or value.get("role") != "assistant" or not isinstance(value.get("content"), list):
        return None
    return Answered(Api.ANTHROPIC, text(value.get("model")), tuple(_content("assistant", value["content"])))


def _content(role: str, content: Any) -> list[Part]:
    if not isinstance(content, list):
        return prompt(role, content)
    parts: list[Part] = []
    for block in map(table, content):
        match block.get("type"):
            case kind if kind in _CALLS:
                parts.append(ToolCall(text(block.get("id")), text(block.get("name")), json.dumps(block.get("input"))))
            case kind if kind in _RESULTS:
                words, unread = texts(block.get("content"))
                parts += [ToolResult(text(block.get("tool_use_id")), words), *unread]
            case "thinking":
                parts.append(Completion(text(block.get("thinking")), thought=True))
            case _:
                parts += prompt(role, [block])
    return parts


def begins(value: dict[str, Any]) -> bool:
    return value.get("type") == "message_start" and isinstance(value.get("message"), dict)


class Stream:
    """Blocks of one answer, by their index."""

    def __init__(self) -> None:
        self.over = False
        self._model = ""
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces = Pieces()

    def event(self, value: dict[str, Any]) -> None:
        kind, index = value.get("type"), value.get("index")
        if kind == "message_start":
            self._model = text(table(value.get("message")).get("model"))
        elif kind == "message_stop":
            self.over = True
        elif kind == "content_block_start" and isinstance(index, int) and len(self._blocks) < 4096:
            block = self._blocks[index] = table(value.get("content_block"))
            self._pieces.add(index, text(block.get("text")) or text(block.get("thinking")))
        elif kind == "content_block_delta" and isinstance(index, int):
            delta = table(value.get("delta"))
            self._pieces.add(index, text(delta.get("text")) or text(delta.get("partial_json")) or text(delta.get("thinking")))

    def answered(self) -> Answered:
        parts: list[Part] = []
        for index, block in self._blocks.items():
            words, kind = self._pieces.get(index), block.get("type")
            if kind in _CALLS:
                parts.append(ToolCall(text(block.get("id")), text(block.get("name")), words or json.dumps(block.get("input"))))
            elif kind in ("text", "thinking"):
                parts.append(Completion(words, thought=kind == "thinking"))
            else:
                parts += _content("assistant", [block])
        if self._pieces.full:
            parts.append(Unread("too long"))
        return Answered(Api.ANTHROPIC, self._model, tuple(parts))
