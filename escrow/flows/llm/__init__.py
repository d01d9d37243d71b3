"""The APIs of language models as agents speak them, recognised by their JSON, not by their address: proxies have any.

    openai_chat, openai_responses, anthropic    one reader for each: requests, answers, streamed answers
    parts                                       what they share: texts out of content blocks

A reader takes parsed JSON and gives parts; what it does not know is `Unread`, never left out in silence.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from escrow.flows.llm import anthropic, openai_chat, openai_responses
from escrow.flows.messages import Answered, Asked


class Streamed(Protocol):
    """A streamed answer being put together. over: whether its last event came."""

    over: bool

    def event(self, value: dict[str, Any]) -> None: ...
    def answered(self) -> Answered: ...


def asked(value: Any) -> Asked | None:
    """The request that a body is; None where it is none."""
    if not isinstance(value, dict) or not isinstance(value.get("model"), str):
        return None
    for reader in (openai_responses.asked, anthropic.asked, openai_chat.asked):
        if (found := reader(value)) is not None:
            return found
    return None


def answered(value: Any) -> Answered | None:
    """The answer that a body is; None where it is none."""
    if not isinstance(value, dict):
        return None
    for reader in (openai_chat.answered, openai_responses.answered, anthropic.answered):
        if (found := reader(value)) is not None:
            return found
    return None


def streamed(value: Any) -> Streamed | None:
    """What puts a stream together whose first event this is; None where it is none of a model."""
    if not isinstance(value, dict):
        return None
    for begins, stream in STREAMS:
        if begins(value):
            return stream()
    return None


STREAMS: Final = (
    (openai_chat.begins, openai_chat.Stream),
    (openai_responses.begins, openai_responses.Stream),
    (anthropic.begins, anthropic.Stream),
)
