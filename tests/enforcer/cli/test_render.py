"""What people see: nothing that a server wrote reaches a terminal as more than plain text."""

from __future__ import annotations

import io
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from enforcer.cli import item, render

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\b\0\x7f\u202e\u2066\u200b\u200d\ufeff\u2028\u00ad\U000e0041\ufe0f\u0301"
BLANKS = "\u115f\u1160\u3164\uffa0\u2800"
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
TEXT = st.text(st.characters() | st.sampled_from(EVIL + BLANKS + "[]\\/bold"), max_size=40)


def row(text: str) -> dict[str, Any]:
    reason = {"rule": "rule.x", "text": "Ours.", "pointer": "/result/" + text, "span": [0, 3], "via": []}
    verdict = {"judge": "scanner", "finding": "HOSTILE", "score": 0.9, "took_ms": 1.0, "reasons": [reason, {**reason, "pointer": "/result/text"}]}
    return {
        "id": "hf-0123456789", "state": "held", "kind": "tools/call", "tool": text, "server": text, "principal": text, "session": "s-1", "held_at": 1.0,
        "deadline": 2.0, "size_bytes": 3, "result_sha256": "a" * 64, "decided_by": text, "reason": text, "verdicts": [verdict],
        "payload": json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"text": text, text: text}}), "released": None,
        "revertible": True, "no_clone": text, "reverted_by": None, "reverted_at": None,
    }  # fmt: skip


def shown(text: str) -> str:
    buffer = io.StringIO()
    console = Console(file=buffer, width=200, color_system=None, highlight=False, emoji=False, force_terminal=False)
    render.items([row(text)], console)
    item.show(row(text), full=True, console=console)
    render.verdict(row(text)["verdicts"][0], console)
    return buffer.getvalue()


@settings(max_examples=60, deadline=None)
@given(TEXT)
def test_no_control_bidi_or_invisible_character_is_shown(text: str) -> None:
    for char in shown(text):
        assert char == "\n" or unicodedata.category(char) not in HIDDEN, hex(ord(char))


@pytest.mark.parametrize("char", sorted({char for char in EVIL + BLANKS if not ("!" <= char <= "~")}))
def test_each_of_them_is_written_as_an_escape(char: str) -> None:
    assert render.safe(f"a{char}b") != f"a{char}b" and render.safe(char).isascii()


@pytest.mark.parametrize("text", ["[bold red]x[/]", "[/]", "[link=http://evil.example]x[/link]", "\\[x", "[", "x\\"])
def test_markup_of_others_is_text(text: str) -> None:
    assert text.replace("\\", "") in shown(text).replace("\\", "").replace("\n", "")


@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_line_of_others_begins_where_one_of_ours_could(width: int) -> None:
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None, highlight=False, emoji=False, force_terminal=False)
    for blanks in range(width):  # one of them reaches the edge
        forged = row("x" + " " * blanks + "FORGED by root (uid 0)")
        render.items([forged], console)
        item.show(forged, full=True, console=console)
        render.verdict(forged["verdicts"][0], console)
        render.said("[bold]pp-1[/] by token x: ", forged["tool"], console)
    assert "FORGED" in buffer.getvalue()
    assert [line for line in buffer.getvalue().splitlines() if line.lstrip().startswith("FORGED")] == []


def test_line_feeds_stay_only_where_they_are_asked_for() -> None:
    assert render.safe("a\nb") == "a\\nb" and render.safe("a\nb", lines=True) == "a\nb" and render.safe("a\r\nb", lines=True) == "a\\r\nb"


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_json({"text": EVIL})
    out = capsys.readouterr().out
    assert out.isascii() and out.count("\n") == 1 and json.loads(out) == {"text": EVIL} and out.strip().isprintable()


def test_a_long_payload_is_cut_to_a_screen_around_the_finding() -> None:
    buffer = io.StringIO()
    console = Console(file=buffer, width=200, color_system=None)
    long = row("x")
    long["payload"] = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"text": "y" * 50_000 + "FOUND" + "z" * 50_000}})
    long["verdicts"][0]["reasons"][1]["span"] = [50_000, 50_005]
    item.show(long, full=False, console=console)
    assert "FOUND" in buffer.getvalue().replace("\n", "") and len(buffer.getvalue()) < 5000
