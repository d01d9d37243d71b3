"""What units mean: messages of JSON-RPC, and what an agent and its language model say to each other.

Pure data. Texts are whole and unescaped: an attacker may have written each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from escrow import jsonrpc
from escrow.flows.unit import Unit


class Api(Enum):
    """Which API of a language model it is."""

    OPENAI_CHAT = "openai chat completions"
    OPENAI_RESPONSES = "openai responses"
    ANTHROPIC = "anthropic messages"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is told. role: as the API calls it (system, developer, user)."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolOffered:
    """A tool that the model may call. definition: its JSON, as the agent sent it."""

    name: str
    definition: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model calls a tool. arguments: JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call came to, told to the model."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model said. thought: whether it is its reasoning."""

    text: str
    thought: bool = False


@dataclass(frozen=True, slots=True)
class Unread:
    """A part of a kind that is not read here: an image, a sound, something newer."""

    kind: str


Part = Prompt | ToolOffered | ToolCall | ToolResult | Completion | Unread


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to a model, with the whole conversation so far. Earlier completions and calls of the model's are in it, too."""

    api: Api
    model: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """A model's answer, put together where it was streamed."""

    api: Api
    model: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Rpc:
    """A JSON-RPC message. call: for a response, the request it answers, None where that was not seen."""

    message: jsonrpc.Message
    call: jsonrpc.Request | None = None


@dataclass(frozen=True, slots=True)
class Plain:
    """A body or an event that is neither. media: its type, as its head says."""

    media: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """It cannot be read in one way only, or not at all. why: in our words."""

    why: str


Content = Rpc | Asked | Answered | Plain | Unreadable


@dataclass(frozen=True, slots=True)
class Message:
    """One message that the taps saw.

    unit: where and when, its bytes. For a streamed answer of a model it is the stream's end, and `raw` is empty.
    why: why it is UNSURE whatever judges say of it; "" where it was seen whole.
    """

    unit: Unit
    content: Content
    why: str = ""

    @property
    def complete(self) -> bool:
        """Whether every byte of it was seen and read."""
        return not self.why
