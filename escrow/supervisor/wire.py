"""One question and one answer between window and daemon: a JSON object a line, answers in any order, paired by id. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_QUESTION_BYTES = 256 * 1024
MAX_ANSWER_BYTES = 4 << 20
AT_ONCE = 64
"""Questions the window may have open; the daemon reads no further ones meanwhile."""
AUTHENTICATE = "authenticate"
"""In a tool's place: is this token good? Asked before anything of a request's body is looked at."""

Socket = tuple[Annotated[str, Field(max_length=64)], Annotated[int, Field(ge=0, le=65535)]]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(_Line):
    """token: as the request bore it; empty where it bore none. peer, own: the two ends of its connection."""

    id: Annotated[int, Field(ge=0, lt=1 << 53)]
    tool: Annotated[str, Field(max_length=64)]
    arguments: dict[str, Any] = {}
    token: Annotated[str, Field(max_length=512)]
    peer: Socket | None
    own: Socket | None


class Refusal(_Line):
    """code: token (none, unknown or expired), rate (too many of these), scope, own (its own item), unfit (arguments, or cannot be done now),
    absent (no such thing), failed (of ours)."""

    code: Literal["token", "rate", "scope", "own", "unfit", "absent", "failed"]
    text: Annotated[str, Field(max_length=4000)]
    retry_after_s: int | None = None


class Reply(_Line):
    """Exactly one of value and refusal."""

    id: int
    value: dict[str, Any] | None = None
    refusal: Refusal | None = None
