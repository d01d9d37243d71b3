"""OpenAI's responses API.

Pure. Source: platform.openai.com, API reference, "Responses": the object `response`, its items, and the streaming events, of which the last
(`response.completed`, `.incomplete`, `.failed`) holds the whole object again.
"""

from __future__ import annotations

import json
from typing import Any, Final

from escrow.flows.llm.parts import Pieces, listed, prompt, table, text, texts
from escrow.flows.messages import Answered, Api, Asked, Completion, Part, Prompt, ToolCall, ToolOffered, ToolResult, Unread

_LAST: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


def asked(value: dict[str, Any]) -> Asked | None:
    if "input" not in value or "messages" in value or not isinstance(value["input"], str | list):
        return None
    parts: list[Part] = [ToolOffered(text(table(each).get("name")) or text(table(each).get("type")), table(each)) for each in listed(value.get("tools"))]
    if isinstance(value["input"], list) and value["input"] and not any(isinstance(item, dict) for item in value["input"]):
        return None  # texts, or tokens: a request for embeddings
    if words := text(value.get("instructions")):
        parts.append(Prompt("system", words))
    if isinstance(value["input"], str):
        parts.append(Prompt("user", value["input"]))
    else:
        for item in value["input"]:
            parts += _item(table(item))
    return Asked(Api.OPENAI_RESPONSES, text(value.get("model")), tuple(parts))


def answered(value: dict[str, Any]) -> Answered | None:
    if value.get("object") != "response" or not isinstance(value.get("output"), list):
        return None
    parts = [part for item in value["output"] for part in _item(table(item), "assistant")]
    return Answered(Api.OPENAI_RESPONSES, text(value.get("model")), tuple(parts))


def _item(item: dict[str, Any], role: str = "user") -> list[Part]:
    match item.get("type", "message"):
        case "message":
            return prompt(text(item.get("role")) or role, item.get("content"))
        case "function_call" | "custom_tool_call" | "mcp_call":
            arguments = item.get("arguments", item.get("input", ""))
            words = arguments if isinstance(arguments, str) else json.dumps(arguments)
            id = text(item.get("call_id")) or text(item.get("id"))
            parts: list[Part] = [ToolCall(id, text(item.get("name")), words)]
            if isinstance(item.get("output"), str):  # mcp_call: the provider's own client called, and has the result
                parts.append(ToolResult(id, item["output"]))
            return parts
        case "function_call_output" | "custom_tool_call_output":
            words, unread = texts(item.get("output"))
            return [ToolResult(text(item.get("call_id")), words), *unread]
        case "reasoning":
            return [Completion(text(table(each).get("text")), thought=True) for each in listed(item.get("summary")) + listed(item.get("content"))]
        case kind:
            return [Unread(text(kind))]


def begins(value: dict[str, Any]) -> bool:
    return text(value.get("type")).startswith("response.")


class Stream:
    """Events of one answer: finished items, pieces of unfinished ones, and the whole object at the end."""

    def __init__(self) -> None:
        self.over = False
        self._whole: Answered | None = None
        self._done: dict[int, list[Part]] = {}
        self._pieces = Pieces()
        self._model = ""

    def event(self, value: dict[str, Any]) -> None:
        kind, index = text(value.get("type")), value.get("output_index")
        if kind in _LAST:
            self.over = True
            self._whole = answered(table(value.get("response")))
        elif kind == "response.created":
            self._model = text(table(value.get("response")).get("model"))
        elif kind == "response.output_item.done" and isinstance(index, int) and len(self._done) < 4096:
            self._done[index] = _item(table(value.get("item")), "assistant")
        elif kind.endswith(".delta") and isinstance(index, int):
            self._pieces.add((index, kind), text(value.get("delta")))

    def answered(self) -> Answered:
        if self._whole is not None:
            return self._whole
        parts = [part for index in sorted(self._done) for part in self._done[index]]
        for index, kind in self._pieces.order():
            if index not in self._done:
                words = self._pieces.get((index, kind))
                parts.append(ToolCall("", "", words) if "arguments" in kind else Completion(words, thought="reasoning" in kind))
        if self._pieces.full:
            parts.append(Unread("too long"))
        return Answered(Api.OPENAI_RESPONSES, self._model, tuple(parts))
