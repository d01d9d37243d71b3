"""OpenAI's chat completions, which most others speak, too.

Pure. Source: platform.openai.com, API reference, "Chat Completions": the objects `chat.completion` and `chat.completion.chunk`.
"""

from __future__ import annotations

import json
from typing import Any

from escrow.flows.llm.parts import Pieces, listed, prompt, table, text, texts
from escrow.flows.messages import Answered, Api, Asked, Completion, Part, ToolCall, ToolOffered, ToolResult, Unread


def asked(value: dict[str, Any]) -> Asked | None:
    messages = value.get("messages")
    if not isinstance(messages, list):
        return None
    parts: list[Part] = []
    for each in listed(value.get("tools")):
        function = table(table(each).get("function"))
        parts.append(ToolOffered(text(function.get("name")), table(each)))
    for message in map(table, messages):
        role = text(message.get("role"))
        if role in ("tool", "function"):
            words, unread = texts(message.get("content"))
            parts += [ToolResult(text(message.get("tool_call_id")) or text(message.get("name")), words), *unread]
        else:
            parts += prompt(role, message.get("content"))
            parts += _calls(message)
    return Asked(Api.OPENAI_CHAT, text(value.get("model")), tuple(parts))


def answered(value: dict[str, Any]) -> Answered | None:
    if not isinstance(value.get("choices"), list) or "model" not in value:
        return None
    parts: list[Part] = []
    for choice in map(table, value["choices"]):
        message = table(choice.get("message"))
        if thought := text(message.get("reasoning_content")) or text(message.get("reasoning")):
            parts.append(Completion(thought, thought=True))
        parts += prompt("assistant", message.get("content"))
        parts += prompt("assistant", message.get("refusal"))
        parts += _calls(message)
    return Answered(Api.OPENAI_CHAT, text(value.get("model")), tuple(parts))


def _calls(message: dict[str, Any]) -> list[Part]:
    calls: list[Part] = []
    for call in map(table, listed(message.get("tool_calls"))):
        function = table(call.get("function") or call.get("custom"))
        arguments = function.get("arguments", function.get("input", ""))
        calls.append(ToolCall(text(call.get("id")), text(function.get("name")), arguments if isinstance(arguments, str) else json.dumps(arguments)))
    if (old := table(message.get("function_call"))) != {}:
        calls.append(ToolCall("", text(old.get("name")), text(old.get("arguments"))))
    return calls


def begins(value: dict[str, Any]) -> bool:
    return value.get("object") == "chat.completion.chunk" or (
        isinstance(value.get("choices"), list) and any("delta" in table(choice) for choice in value["choices"])
    )


class Stream:
    """Chunks of one answer. Ends with a finish reason for each choice seen; the last event, `[DONE]`, is no JSON."""

    def __init__(self) -> None:
        self.over = False
        self._model = ""
        self._pieces = Pieces()
        self._calls: dict[tuple[int, int], tuple[str, str]] = {}
        self._open: dict[int, bool] = {}
        self._unread: list[Unread] = []

    def event(self, value: dict[str, Any]) -> None:
        self._model = self._model or text(value.get("model"))
        for choice in map(table, listed(value.get("choices"))):
            index = choice.get("index") if isinstance(choice.get("index"), int) else 0
            assert isinstance(index, int)
            delta = table(choice.get("delta"))
            for key in ("reasoning_content", "reasoning", "content", "refusal"):
                if isinstance(delta.get(key), str):
                    self._pieces.add((index, "thought" if key.startswith("reasoning") else "said", 0), delta[key])
                elif delta.get(key) is not None:
                    self._unread.append(Unread(key))
            for call in map(table, listed(delta.get("tool_calls"))):
                number = call.get("index") if isinstance(call.get("index"), int) else 0
                assert isinstance(number, int)
                function = table(call.get("function"))
                id, name = self._calls.get((index, number), ("", ""))
                self._calls[index, number] = (id or text(call.get("id")), name + text(function.get("name")))
                self._pieces.add((index, "call", number), text(function.get("arguments")))
            if len(self._open) < 256:
                self._open[index] = choice.get("finish_reason") is None
        self.over = bool(self._open) and not any(self._open.values())

    def answered(self) -> Answered:
        parts: list[Part] = []
        for index, kind, number in self._pieces.order():
            words = self._pieces.get((index, kind, number))
            if kind == "call":
                parts.append(ToolCall(*self._calls[index, number], words))
            elif words:
                parts.append(Completion(words, thought=kind == "thought"))
        if self._pieces.full:
            parts.append(Unread("too long"))
        return Answered(Api.OPENAI_CHAT, self._model, (*parts, *self._unread[:16]))
