"""The second judge as an operator sees it: a real server, its twin under gVisor, and Holdfast's own commands."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.enforcer.helper.world import until
from tests.real.twins import ERA, World, world

pytestmark = [pytest.mark.root, pytest.mark.runsc]


@pytest.fixture(scope="module")
def live() -> Iterator[World]:
    with world() as made:
        yield made


def held(live: World, tool: str, **arguments: object) -> tuple[dict[str, Any], ThreadPoolExecutor]:
    """The item that a call leaves, whose client waits on."""
    known, thread = live.gate.known(), ThreadPoolExecutor(1)
    thread.submit(live.client.call, tool, **arguments)
    return live.gate.wait_item(known, state="held"), thread


def test_what_both_judges_find_clean_is_released_as_agreed(live: World) -> None:
    assert live.client.call("add", a=1, b=2)["result"]["structuredContent"] == {"result": 3}
    answer = live.client.call("write", path=str(live.data / "notes.txt"), text="new")
    assert answer["result"]["structuredContent"] == {"result": "written"} and (live.data / "notes.txt").read_text() == "new"
    assert json.loads(live.gate.holdfast("verdicts", "--json"))[-1]["recorded"] == "agreed"


def test_show_puts_both_verdicts_side_by_side_with_effects_and_differences(live: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    target = live.folder / "x[bold]\x1b[2J"
    item, thread = held(live, "write", path=str(target), text="new")
    try:
        shown = live.gate.holdfast("escrow", "show", item["id"])
        assert next(line for line in shown.splitlines() if "HOSTILE" in line).split()[:2] == ["CLEAN", "scanner"]
        lines = [line.strip() for line in shown.splitlines()]
        place = f"{live.folder}/x[bold]\\u{{1b}}[2J"
        assert f"changed  not allowed  {place}" in lines and "\x1b" not in shown
        at = lines.index("/result/content/0/text")
        assert lines[at + 1 : at + 3] == ['twin  "Error executing tool write"', 'real  "written"'], shown
        run = json.loads(live.gate.holdfast("escrow", "show", item["id"], "--json"))["sandbox"]
        assert run["effects"]["writes"] == [{"path": str(target), "change": "changed", "mode": None, "allowed": False}]
    finally:
        live.gate.deny(item)
        thread.shutdown()
        target.unlink(missing_ok=True)


def test_status_and_ls_show_template_pool_hit_rate_and_times(live: World) -> None:
    for words in (("status",), ("sandbox", "ls")):  # a keeper that is busy may be silent once
        until(lambda words=words: "twins of files, MCP 2025-11-25: " in (shown := live.gate.holdfast(*words)) and "% from the pool, median " in shown)
    until(lambda: live.client.call("add", a=1, b=2) and any(each.get("hits", 0) for each in live.status()))  # one that found a twin waiting
    found = json.loads(live.gate.holdfast("sandbox", "ls", "--json"))
    [running] = [each for each in found["running"]["servers"] if each["era"] == ERA]
    assert running["template"]["digest"] in {row["digest"] for row in found["templates"]} and running["hits"] >= 1 and running["pool"] == 1
    assert "  in use" in live.gate.holdfast("sandbox", "ls")


def test_ls_without_a_daemon_shows_what_lies_on_disk(live: World) -> None:
    nobody = live.folder / "nobody"
    nobody.mkdir()
    os.symlink(live.folder / "state", nobody / "state")
    found = json.loads(type(live.gate)(nobody, [], 0, live.gate.program).holdfast("sandbox", "ls", "--json"))
    assert found["templates"] and found["running"] is None
