"""The jury's settings, as the policy's `[jury]` table has them. Without that table nobody is asked."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class JurySettings(BaseModel):
    """An OpenAI-compatible endpoint, when it is asked, and what that may cost.

    url: base address; `/chat/completions` is added to it. model: the name sent to it.
    api_key_file: a file with the bearer token. Read by the jury's own process alone, while it starts.
    timeout_s: for everything about one question, retries too; then it is UNSURE.
    max_calls_per_hour: questions in any sixty minutes; one more is UNSURE.
    above, below: the gray band of the scanner's score, both ends in it.
    max_chars: most code points of evidence shown. What does not fit whole can no more be called CLEAN.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    url: str = Field(max_length=1024)
    model: str = Field(min_length=1, max_length=200)
    api_key_file: str | None = None
    timeout_s: float = Field(10.0, gt=0, le=120)
    max_calls_per_hour: int = Field(200, ge=1, le=100_000)
    above: float = Field(0.3, ge=0, le=1)
    below: float = Field(0.9, ge=0, le=1)
    max_chars: int = Field(8000, ge=500, le=100_000)

    @field_validator("url")
    @classmethod
    def _usable(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError("must be an http or https address")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("must have no user, query or fragment; a key stands in api_key_file")
        if not value.isascii() or any(char <= " " for char in value):
            raise ValueError("must be plain ASCII without spaces")
        _ = parts.port  # raises ValueError where it is none
        return value.rstrip("/")

    @model_validator(mode="after")
    def _safe(self) -> JurySettings:
        if self.above > self.below:
            raise ValueError("above must not be greater than below")
        if self.api_key_file is not None and urlsplit(self.url).scheme == "http" and not _is_loopback(urlsplit(self.url).hostname or ""):
            raise ValueError("a key goes only over https, or to a loopback address")
        return self

    @property
    def endpoint(self) -> str:
        """Where questions are posted."""
        return self.url + "/chat/completions"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
