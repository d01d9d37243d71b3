"""What people see of a call's run in a twin, and of the pools: whole sentences, what is not allowed first, nothing of a server's as it is."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from rich.console import Console

from enforcer.cli import item, twins
from escrow.sandbox import judge
from escrow.sandbox.effects import Change, Connect, Effects, Execute, Write
from escrow.sandbox.report import report
from escrow.sandbox.run import Run
from tests.enforcer.cli.test_render import BLANKS, EVIL, HIDDEN, TEXT, row, unicodedata
from tests.escrow.sandbox.test_judge import RULES

REAL = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"the sum is 3"}],"n":3}}'


def ran(text: str = "x", real: bytes = REAL) -> dict[str, Any]:
    effects = Effects(
        reads=("/etc/passwd", text),
        writes=(Write("/tmp/fine", Change.CREATED, 0o100644), Write(f"/etc/{text}", Change.CHANGED, 0o100644), Write("/tmp/gone", Change.DELETED)),
        connects=(Connect("127.0.0.1", 80, inside=True), Connect("2001:db8::1", 443, text), Connect(text, None)),
        executes=(Execute("/bin/sh", ("sh", "-c", text)),),
        incomplete=(text,),
    )
    answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "the sum is " + text}], text: text}}).encode()
    run = Run("answered", effects, answer, why=text, took_ms=12.34, frozen_ms=0.5, pooled=True)
    said = judge.after(run, real, RULES)
    shown: dict[str, Any] = json.loads(report(run, said, RULES, real))
    return shown


def screen(run: dict[str, Any], full: bool = False, width: int = 160) -> str:
    buffer = io.StringIO()
    twins.ran(run, full, Console(file=buffer, width=width, color_system=None, highlight=False, emoji=False, force_terminal=False))
    return buffer.getvalue()


def whole(text: str, width: int, full: bool = False) -> str:
    """`escrow show` of an item that two judges spoke about and that ran in a twin."""
    one = row(text)
    place = {"rule": "sandbox.write", "text": "Ours too.", "pointer": f"/etc/{text}", "span": None, "via": []}
    one["verdicts"] += [{"judge": "sandbox", "finding": "HOSTILE", "score": 1.0, "took_ms": 2.0, "reasons": [place] * 2}]
    one["sandbox"] = ran(text)
    buffer = io.StringIO()
    item.show(one, full=full, console=Console(file=buffer, width=width, color_system=None, highlight=False, emoji=False, force_terminal=False))
    return buffer.getvalue()


def test_what_is_not_allowed_stands_first_and_says_so() -> None:
    lines = [line.strip() for line in screen(ran()).splitlines()]
    assert lines[1] == "In the twin  answered in 12.3 ms, state frozen in 0.5 ms, from the pool, 2 files read"
    assert lines[3:6] == ["changed  not allowed  /etc/x  -rw-r--r--", "created  /tmp/fine  -rw-r--r--", "deleted  /tmp/gone"]
    assert "connect  not allowed  [2001:db8::1]:443  looked up as x" in lines and "inside   127.0.0.1:80" in lines
    assert "started  not allowed  /bin/sh -c x" in lines and "unknown  x" in lines


def test_both_answers_stand_at_the_places_where_they_differ() -> None:
    lines = [line.strip() for line in screen(ran()).splitlines()]
    at = lines.index("/result/content/0/text")
    assert lines[at + 1 : at + 3] == ['twin  "the sum is x"', 'real  "the sum is 3"']
    at = lines.index("/result/n")
    assert lines[at + 1 : at + 3] == ["twin  nothing stands there", "real  3"]


def test_a_long_text_is_shown_from_where_the_two_part() -> None:
    real = b'{"jsonrpc":"2.0","id":1,"result":{"text":"%s"}}' % (b"a" * 5000 + b"END" + b"b" * 5000)
    answer = real.replace(b"END", b"XXX")
    run = Run("answered", answer=answer)
    [difference] = json.loads(report(run, judge.after(run, real, RULES), RULES, real))["differences"]
    assert difference["twin"].startswith('…"' + "a" * 40 + "XXXb") and difference["real"].startswith('…"' + "a" * 40 + "ENDb")
    assert difference["real"].endswith('"…') and len(difference["real"]) < 250


def test_many_effects_are_counted() -> None:
    run = Run("answered", Effects(writes=tuple(Write(f"/tmp/{n}", Change.CREATED, 0o100644) for n in range(150))), REAL)
    shown = json.loads(report(run, judge.after(run, REAL, RULES), RULES, REAL))
    assert "and 140 more writes; --full shows more" in screen(shown) and "and 50 more writes" in screen(shown, full=True)


def test_a_clean_run_says_that_it_did_nothing() -> None:
    run = Run("answered", answer=REAL)
    shown = screen(json.loads(report(run, judge.after(run, REAL, RULES), RULES, REAL)))
    assert "it wrote nothing that is kept, connected to nothing and started nothing" in shown and "differ" not in shown


def test_two_judges_stand_side_by_side_where_there_is_room() -> None:
    head = next(line for line in whole("x", 120).splitlines() if "HOSTILE" in line)
    assert head.index("scanner") < head.index("sandbox")
    assert not any("scanner" in line and "sandbox" in line for width, full in ((80, False), (120, True)) for line in whole("x", width, full).splitlines())


@pytest.mark.parametrize("width", [40, 100, 160])
def test_no_line_of_others_begins_where_one_of_ours_could(width: int) -> None:
    for blanks in range(width):
        text = "x" + " " * blanks + "FORGED by root (uid 0)"
        for shown in (whole(text, width), whole(text, width, full=True)):
            assert "FORGED" in shown
            assert [line for line in shown.splitlines() if line.lstrip().startswith("FORGED")] == []


@settings(max_examples=40, deadline=None)
@given(TEXT)
def test_no_control_bidi_or_invisible_character_is_shown(text: str) -> None:
    for char in whole(text + EVIL + BLANKS, 120):
        assert char == "\n" or unicodedata.category(char) not in HIDDEN, hex(ord(char))


def server(**changes: Any) -> dict[str, Any]:
    counted = {"waiting": 1, "hits": 3, "misses": 1, "failures": 0, "took_ms_median": 9.6, "took_ms_p99": 31.2}
    return {"server": "files[x]", "era": "2025-11-25", "why": "", "template": {"digest": "a" * 64}, "pool": 2, **counted, **changes}


@pytest.mark.parametrize(
    "shown, line",
    [
        ({"servers": [server()]}, "twins of files[x], MCP 2025-11-25: 1 of 2 wait; 4 calls, 75 % from the pool, median 10 ms, 99th percentile 31 ms"),
        ({"servers": [server(hits=0, misses=0, took_ms_median=None)]}, "twins of files[x], MCP 2025-11-25: 1 of 2 wait; no calls yet"),
        (
            {"servers": [server(failures=2, took_ms_median=None)]},
            "twins of files[x], MCP 2025-11-25: 1 of 2 wait; 4 calls, 75 % from the pool, 2 could not be restored",
        ),
        ({"servers": [server(template=None, why="it is built\x1b")]}, "twins of files[x], MCP 2025-11-25: none, it is built\\u{1b}"),
        ({"servers": [], "why": "runsc is not installed"}, "twins: none, runsc is not installed"),
    ],
)
def test_a_pool_is_one_line(shown: dict[str, Any], line: str) -> None:
    buffer = io.StringIO()
    twins.servers(shown, Console(file=buffer, width=160, color_system=None, highlight=False, emoji=False))
    assert buffer.getvalue() == line + "\n"
