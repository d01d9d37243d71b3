"""The `[jury]` table: an address that keeps a key secret, and bounds."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from escrow.jury_settings import JurySettings


def test_the_defaults_ask_about_the_gray_band() -> None:
    settings = JurySettings(url="https://judge.example/v1/", model="m")
    assert settings.endpoint == "https://judge.example/v1/chat/completions"
    assert (settings.timeout_s, settings.max_calls_per_hour, settings.above, settings.below, settings.max_chars) == (10, 200, 0.3, 0.9, 8000)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/v1", "http://localhost:1", "http://[::1]:1/v1", "https://judge.example"])
def test_a_key_goes_over_tls_or_stays_on_the_machine(url: str) -> None:
    assert JurySettings(url=url, model="m", api_key_file="/k").url == url


def test_an_unencrypted_endpoint_elsewhere_gets_no_key() -> None:
    assert JurySettings(url="http://ollama:11434/v1", model="m").endpoint == "http://ollama:11434/v1/chat/completions"
    with pytest.raises(ValidationError, match="a key goes only over https"):
        JurySettings(url="http://ollama:11434/v1", model="m", api_key_file="/k")
    with pytest.raises(ValidationError, match="a key goes only over https"):
        JurySettings(url="http://localhost.evil.example/v1", model="m", api_key_file="/k")


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://judge.example"},
        {"url": "judge.example/v1"},
        {"url": "https://"},
        {"url": "https://user:secret@judge.example"},
        {"url": "https://judge.example/v1?key=secret"},
        {"url": "https://judge.example/v1#x"},
        {"url": "https://judge.example:99999/v1"},
        {"url": "https://judge.example/v1\r\nX: y"},
        {"url": "https://jüdge.example/v1"},
        {"model": ""},
        {"above": 0.9, "below": 0.3},
        {"timeout_s": 0},
        {"max_calls_per_hour": 0},
        {"max_chars": 1},
        {"api_key": "secret"},
    ],
)
def test_what_cannot_be_meant_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JurySettings.model_validate({"url": "https://judge.example/v1", "model": "m"} | wrong)
