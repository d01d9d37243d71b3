"""The second judge as a user has it: a gate, proxied and steered, a server of the official SDK, its twin under a real gVisor, the official client."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.real import client, gate
from tests.real.client import Session
from tests.real.gate import Gate
from tests.real.process import ROOT, Program, free_port

pytestmark = [pytest.mark.root, pytest.mark.runsc]
SERVER = ROOT / "tests" / "enforcer" / "sandbox" / "server.py"
WAYS = [pytest.param(False, id="proxied"), pytest.param(True, id="steered", marks=pytest.mark.bpf)]
PROXIED = pytest.mark.parametrize("world", WAYS[:1], indirect=True)
"""What does not depend on the way a connection came is tested on one."""
FILLED_S = 40.0

POLICY = """
[server]
name = "twin"
[escrow]
claim_after_s = 0.3
[scanner]
unsure_at = 1
hostile_at = 1
[judging]
judges = ["scanner", "sandbox"]
require = ["scanner", "sandbox"]
outgoing = "off"
taint = "off"
{judging}
[servers.twin.sandbox]
command = ["{python}", "{server}"]
hidden = ["/run"]
run_ms = 3000
snapshot_ms = 2000
memory_mb = 128
processes = 16
answer_bytes = 1048576
[[servers.twin.sandbox.state]]
kind = "directory"
path = "{folder}/files"
[[rule]]
tools = ["add", "kernel", "sleep"]
class = "read-only"
"""
"""What a rule does not name runs before the real call, and may write its state alone."""


@dataclass(frozen=True)
class World:
    """folder: the test's own; the state is its `files`. session: a client that stays connected. seen: items that earlier tests made."""

    folder: Path
    gate: Gate
    session: Session
    seen: set[str] = field(default_factory=set)

    def status(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.gate.holdfast("status", "--json"))["sandbox"]
        return shown

    def verdicts(self, tool: str) -> list[dict[str, Any]]:
        """What was recorded of a tool's calls, oldest first."""
        shown: list[dict[str, Any]] = json.loads(self.gate.holdfast("verdicts", "--json"))
        return [each for each in shown if each.get("tool") == tool]

    def ready(self) -> None:
        """Wait for the template of the client's era."""
        until(lambda: [era for era in self.status()["servers"] if era["era"] != "2026-07-28" and era["template"]])

    def filled(self) -> None:
        """Wait for a twin that waits for a call, of which there is none before the first call."""
        self.ready()
        assert said(self.session.call("add", a=0, b=0)) == (False, "0")
        until(lambda: any(era["waiting"] for era in self.status()["servers"]))

    def runs(self) -> list[Path]:
        """The folders of runs under way: each has the state of one."""
        return list((self.folder / "state" / "sandbox" / "twin" / "work" / "twins").glob("state-*"))

    def keeper(self) -> int:
        (pid,) = [pid for pid in _below(self.gate.program.process.pid) if _is_keeper(pid)]
        return pid


def until(what: Callable[[], object], pause_s: float = 0.3) -> None:
    deadline = time.monotonic() + FILLED_S
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause_s)


def _below(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(found for child in children for found in _below(child))]


def _is_keeper(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "holdfast-keeper\n" or b"enforcer.sandbox.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@contextmanager
def started(steer: bool) -> Iterator[World]:
    """Not below /tmp, where twins see nothing."""
    with TemporaryDirectory(prefix="holdfast-real-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "files").mkdir()
        port = free_port()
        server = Program([sys.executable, str(SERVER), "--http", str(port), "json"], folder / "server-output")
        try:
            server.wait_listening(port)
            with gate.run(folder, port, steer=steer, policy=policy(folder), more=("--no-taps",) if steer else ()) as running:
                with client.connect(client.KINDS["py2-legacy"], f"http://127.0.0.1:{running.port}/mcp") as session:
                    yield World(folder, running, session)
        finally:
            server.kill()


def policy(folder: Path, judging: str = "") -> str:
    return POLICY.format(judging=judging, python=sys.executable, server=SERVER, folder=folder)


@pytest.fixture(scope="module", params=WAYS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with started(request.param) as made:
        made.ready()
        yield made


def said(outcome: dict[str, Any]) -> tuple[bool, str]:
    """Whether it is an error, and its first text."""
    assert outcome["ok"], outcome
    return outcome["value"]["isError"], outcome["value"]["content"][0]["text"]


def reasons(item: dict[str, Any]) -> tuple[str, set[tuple[str, str]]]:
    """What the second judge said of an item: its finding, and each reason's rule and place."""
    (verdict,) = [verdict for verdict in item["verdicts"] if verdict["judge"] == "sandbox"]
    return verdict["finding"], {(reason["rule"], reason["pointer"]) for reason in verdict["reasons"]}


def held(world: World, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool; the item that it becomes."""
    error, text = said(world.session.call(tool, **arguments))
    assert error and "Holdfast" in text
    return new(world, tool)


def new(world: World, tool: str) -> dict[str, Any]:
    """A tool's item that no test saw yet."""
    item = world.gate.wait_item(world.seen, tool=tool)
    world.seen.add(item["id"])
    return item


def test_an_honest_result_is_released_as_agreed(world: World) -> None:
    assert said(world.session.call("add", a=1, b=2)) == (False, "3")
    assert [(each["outcome"], each["recorded"]) for each in world.verdicts("add") if each["outcome"] != "sent"][-1] == ("released", "agreed")


@PROXIED
def test_a_call_runs_in_its_twin_first_and_then_once_for_real(world: World) -> None:
    path = world.folder / "files" / "note"
    assert said(world.session.call("write", path=str(path), text="mine")) == (False, "written")
    assert path.read_text() == "mine"
    assert said(world.session.call("look", path=str(path.parent))) == (False, "note"), "the next twin sees what the real call wrote"
    assert world.verdicts("look")[-1]["recorded"] == "agreed"


LIES = {
    "writes outside": ("write", {"path": "OUTSIDE/evil", "text": "x"}, "sandbox.write", "OUTSIDE/evil"),
    "connects out": ("connect", {"host": "198.51.100.7", "port": 25}, "sandbox.connect", "198.51.100.7:25"),
    "starts a shell": ("shell", {"command": "echo x > OUTSIDE/evil"}, "sandbox.execute", "/bin/sh"),
}


STEERED_LIE = pytest.param(True, *LIES["writes outside"], id="steered-writes outside", marks=pytest.mark.bpf)


@pytest.mark.parametrize(
    ("world", "tool", "arguments", "rule", "place"),
    [*(pytest.param(False, *lie, id=f"proxied-{name}") for name, lie in LIES.items()), STEERED_LIE],
    indirect=["world"],
)
def test_what_a_lying_tool_did_in_its_twin_holds_the_request_and_the_server_never_hears_of_it(
    world: World, tool: str, arguments: dict[str, Any], rule: str, place: str
) -> None:
    item = held(world, tool, **{key: value.replace("OUTSIDE", str(world.folder)) if isinstance(value, str) else value for key, value in arguments.items()})
    finding, found = reasons(item)
    assert finding == "HOSTILE" and item["holds"] == "request"
    assert (rule, place.replace("OUTSIDE", str(world.folder))) in found, found
    assert [each for each in world.verdicts(tool) if each["outcome"] == "sent" and each.get("item") == item["id"]] == []
    assert not (world.folder / "evil").exists()
    assert place.replace("OUTSIDE", str(world.folder)).removesuffix(":25") in world.gate.holdfast("escrow", "show", item["id"])


@PROXIED
def test_the_same_call_passes_where_the_policys_globs_allow_it(world: World) -> None:
    evil = world.folder / "allowed"
    (world.folder / "other.toml").write_text(policy(world.folder, f'writes = ["{evil}"]'))
    assert reasons(held(world, "write", path=str(evil), text="held"))[0] == "HOSTILE"
    world.gate.holdfast("policy", "set", str(world.folder / "other.toml"), "-m", "a test")
    try:
        assert said(world.session.call("write", path=str(evil), text="passes")) == (False, "written")
        assert world.verdicts("write")[-1]["recorded"] == "agreed" and evil.read_text() == "passes"
    finally:
        world.gate.holdfast("policy", "set", str(world.folder / "policy.toml"), "-m", "a test")


@PROXIED
def test_an_answer_that_is_another_outside_than_in_the_twin_is_held_and_the_place_named(world: World) -> None:
    item = held(world, "kernel")
    finding, found = reasons(item)
    assert (finding, item["holds"]) == ("UNSURE", "result") and ("sandbox.different", "/result/content/0/text") in found
    shown = world.gate.holdfast("escrow", "show", item["id"])
    assert "/result/content/0/text" in shown.partition("Where the answers differ")[2].partition("What the server sent")[0]


@PROXIED
def test_a_fork_bomb_and_an_endless_answer_end_with_their_twin_and_the_server_never_gets_the_call(world: World) -> None:
    assert reasons(held(world, "big", size=100 << 20)) in [("UNSURE", {(rule, "")}) for rule in ("sandbox.failed", "sandbox.late")]
    assert reasons(held(world, "bomb"))[0] in ("UNSURE", "HOSTILE")
    assert said(world.session.call("add", a=3, b=4)) == (False, "7")
    assert _groups(world.keeper()) <= 3, "two that wait, and one that is being made"


def test_a_keeper_that_is_killed_holds_the_call_and_the_next_one_has_a_twin_again(world: World) -> None:
    until(lambda: not world.runs(), 0.02)
    keeper = world.keeper()
    world.session.send(do="call", name="sleep", arguments={"seconds": 1.5})
    until(world.runs, 0.02)
    os.kill(keeper, signal.SIGKILL)
    assert said(world.session.receive())[0]
    assert reasons(new(world, "sleep")) == ("UNSURE", {("sandbox.absent", "")})
    until(lambda: world.status()["present"])
    world.ready()
    assert _groups(keeper) == 0, "the next keeper ends what the first one left"
    assert said(world.session.call("add", a=5, b=6)) == (False, "11")
    assert world.verdicts("add")[-1]["recorded"] == "agreed"


def _groups(keeper: int) -> int:
    """Control groups of the twins of a keeper."""
    return len({path.name for path in Path("/sys/fs/cgroup").glob(f"**/holdfast-twins/twin-{keeper}-*")})


def test_after_the_stop_nothing_of_a_twin_is_left(world: World) -> None:
    world.filled()
    keeper, process = world.keeper(), world.gate.program.process
    assert _groups(keeper) > 0
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert _groups(keeper) == 0
    assert [path for path in Path("/proc").glob("[0-9]*/cmdline") if _runs_twins_of(path, world.folder)] == []
    assert [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(world.folder) in line] == []
    assert list((world.folder / "state" / "sandbox" / "twin" / "work" / "twins").iterdir()) == []


def _runs_twins_of(cmdline: Path, folder: Path) -> bool:
    try:
        said = cmdline.read_bytes()
    except OSError:
        return False
    return str(folder).encode() in said and (b"runsc" in said or b"keeper" in said)


@pytest.mark.parametrize("steer", WAYS)
def test_without_runsc_every_result_is_held_and_the_reason_says_so(steer: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with started(steer) as world:
        until(lambda: "runsc is not installed" in json.dumps(world.status()))
        item = held(world, "add", a=1, b=2)
        assert reasons(item) == ("UNSURE", {("sandbox.absent", "")})
        assert "runsc is not installed" in world.gate.holdfast("escrow", "show", item["id"])
