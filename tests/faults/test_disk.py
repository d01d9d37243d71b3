"""A disk that fills, to the page, at each moment: what cannot be written is refused, what was held stays held, and with space all goes on."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from enforcer.evidence import EvidenceError, EvidenceLog
from enforcer.evidence.files import folder_of
from enforcer.store import Store, StoreError
from tests.faults import world
from tests.faults.disk import Disk, disk
from tests.faults.world import Client, Refused, Upstream, control, items, new_item, request, until
from tests.real import gate as gates
from tests.real.conftest import FULL
from tests.real.gate import HOLDFAST, Gate

pytestmark = pytest.mark.root
ROOM = range(0, 40) if FULL else (0, 1, 2, 3, 5, 8, 12, 20)
"""Pages left free: each place where one call writes something fails in turn."""
_keys = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with world.upstream(tmp_path_factory.mktemp("upstream") / "server") as running:
        yield running


@pytest.fixture(scope="module")
def small(server: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gate, Disk]]:
    """A gate whose state stands on a small disk."""
    folder = tmp_path_factory.mktemp("small")
    with disk(folder / "state", "6m") as mounted, gates.run(folder, server.port, policy=world.ONE_WORKER) as gate:
        yield gate, mounted


@pytest.mark.parametrize("pages", ROOM)
def test_a_result_is_held_whole_or_refused_whole_whatever_room_is_left(pages: int, small: tuple[Gate, Disk], server: Upstream) -> None:
    gate, mounted = small
    key, before = f"d{next(_keys)}", set(items(gate))
    world.assert_served(gate.port)
    mounted.fill(pages)
    try:
        answer = world.ask_once(gate.port, "hostile", key=key, size=12_000)
        assert answer and not world.leaked(answer), answer
        assert control(gate, "status")["enforcing"]
    finally:
        mounted.free()
    world.assert_served(gate.port)
    held = [item for id_, item in items(gate).items() if id_ not in before]
    assert len(held) <= 1
    for item in held:
        assert item["state"] == "held" and server.runs(key) == 1
        assert world.approve(gate, item)["state"] == "approved"
        assert world.leaked(world.ask_once(gate.port, "hostile", key=key, size=12_000)) and server.runs(key) == 1


def test_a_disk_that_fills_while_the_tool_runs_lets_nothing_out(small: tuple[Gate, Disk], server: Upstream) -> None:
    gate, mounted = small
    world.assert_served(gate.port)
    server.stay()
    with Client(gate.port) as client:
        client.send(request("slow", key="filling"))
        until(lambda: server.runs("filling") == 1, "it did not run")
        mounted.fill()
        try:
            server.go()
            answer = client.answer()
            assert answer and not world.leaked(answer)
        finally:
            mounted.free()
    world.assert_served(gate.port)


def test_a_decision_that_cannot_be_written_is_refused_and_can_be_taken_later(small: tuple[Gate, Disk], server: Upstream) -> None:
    gate, mounted = small
    before = set(items(gate))
    assert not world.leaked(world.ask_once(gate.port, "hostile", key="later"))
    item = new_item(gate, before)
    mounted.fill()
    try:
        _fill_last_pages(mounted, gate)
        assert isinstance(world.approve(gate, item), Refused)
        assert not world.leaked(world.ask_once(gate.port, "hostile", key="later"))
    finally:
        mounted.free()
    assert items(gate)[item["id"]]["state"] == "held"
    assert world.approve(gate, item)["state"] == "approved"
    assert world.leaked(world.ask_once(gate.port, "hostile", key="later"))
    assert server.runs("later") == 1
    gate.holdfast("audit", "verify", "--allow-tail")


def _fill_last_pages(mounted: Disk, gate: Gate) -> None:
    """The files' own last pages have room still: calls that are refused fill the evidence log's."""
    for _ in range(200):
        if control(gate, "status")["evidence"]["problem"] is not None:
            return
        world.ask_once(gate.port, "clean", note="x" * 100)
    raise AssertionError("the evidence log never fills")


def test_an_evidence_log_without_room_stops_every_call_and_says_so(server: Upstream, tmp_path: Path) -> None:
    with disk(folder_of(tmp_path / "state"), "256k") as mounted, gates.run(tmp_path, server.port, policy=world.ONE_WORKER) as gate:
        world.assert_served(gate.port)
        mounted.fill()
        _fill_last_pages(mounted, gate)
        answer = world.ask_once(gate.port, "clean", key="unrecorded")
        assert b'"isError":true' in answer.replace(b" ", b"") and server.runs("unrecorded") == 0, "what cannot be recorded does not run"
        mounted.free()
        world.assert_served(gate.port)
        assert control(gate, "status")["evidence"]["problem"] is None
        gate.holdfast("audit", "verify", "--allow-tail")


def test_a_first_start_without_room_fails_with_words_and_the_next_one_with_room_succeeds(tmp_path: Path) -> None:
    """At every page: a key, a database or a log that was half made is no obstacle afterwards."""
    with disk(tmp_path / "disk", "2m") as mounted:
        for pages in range(0, 48, 1 if FULL else 2):
            state = mounted.folder / f"state-{pages}"
            state.mkdir()
            mounted.fill(pages)
            with suppress(StoreError, EvidenceError):
                _open_and_close(state)
            mounted.free()
            _open_and_close(state)
            subprocess.run(["rm", "-r", str(state)], check=True)


def _open_and_close(state: Path) -> None:
    store = Store(state)
    try:
        log = EvidenceLog.open(state, "demo", lambda _: None)
        with suppress(EvidenceError):  # it says at its end that the tail could not be signed
            log.close()
    finally:
        store.close()


def test_the_command_says_in_one_line_that_the_disk_is_full(server: Upstream, tmp_path: Path) -> None:
    with disk(tmp_path / "state", "1m") as mounted:
        mounted.fill()
        command = [str(HOLDFAST), "proxy", "--listen", "127.0.0.1:0", "--upstream", f"http://127.0.0.1:{server.port}", "--mcp-listen", "none"]
        directories = ["--state-dir", str(tmp_path / "state"), "--runtime-dir", str(tmp_path / "run")]
        done = subprocess.run([*command, *directories], capture_output=True, text=True, timeout=world.LIMIT_S, stdin=subprocess.DEVNULL)
        assert done.returncode == 1 and done.stdout == ""
        assert len(done.stderr.splitlines()) == 1 and "full" in done.stderr, done.stderr
    assert os.path.ismount(tmp_path / "state") is False
