"""Canaries of an instance: kept as digests, told to the judge at once, over restarts, and over the control socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from enforcer.cli.app import app
from enforcer.control.canaries import Canaries, CanariesFailed
from enforcer.control.people import People
from enforcer.control.server import ControlServer
from enforcer.control.tokens import Tokens
from enforcer.custody import Custody, Judges, Said
from enforcer.evidence import EvidenceLog
from enforcer.store import Store
from escrow import jsonrpc
from escrow.canary import MOST, Canary, digest, make
from escrow.policy import Policy
from escrow.verdict import Finding, Verdict

TOKEN = make(bytes(range(17)))


class Watch:
    """What the judge was told last."""

    def __init__(self) -> None:
        self.told: dict[str, str] = {}

    def __call__(self, canaries: Mapping[str, str]) -> None:
        self.told = dict(canaries)


def test_a_canary_is_told_to_the_judge_at_once_and_after_a_restart_until_it_is_removed(tmp_path: Path) -> None:
    watch = Watch()
    canaries = Canaries(tmp_path / "c.json", watch)
    canaries.add(Canary("db", digest(TOKEN), 1.0))
    assert watch.told == {digest(TOKEN): "db"}
    again = Watch()
    reopened = Canaries(tmp_path / "c.json", again)
    assert again.told == watch.told
    assert reopened.remove("db") == Canary("db", digest(TOKEN), 1.0)
    assert again.told == {}
    with pytest.raises(CanariesFailed, match="no canary with this name"):
        reopened.remove("db")


def test_the_file_holds_no_token_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    Canaries(path, Watch()).add(Canary("db", digest(TOKEN), 1.0))
    assert TOKEN[4:20] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_name_and_a_token_are_watched_once_and_their_number_is_bounded(tmp_path: Path) -> None:
    canaries = Canaries(tmp_path / "c.json", Watch())
    canaries.add(Canary("db", digest(TOKEN), 1.0))
    with pytest.raises(CanariesFailed, match="with this name"):
        canaries.add(Canary("db", "0" * 64, 1.0))
    with pytest.raises(CanariesFailed, match="under another name"):
        canaries.add(Canary("other", digest(TOKEN), 1.0))
    full = tmp_path / "full.json"
    full.write_text(json.dumps([{"name": f"c-{index}", "digest": f"{index:064x}", "made_at": 1.0} for index in range(MOST)]))
    with pytest.raises(CanariesFailed, match="remove some"):
        Canaries(full, Watch()).add(Canary("db", digest(TOKEN), 1.0))


def test_a_file_that_cannot_be_read_is_said_and_nothing_is_written_over_it(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("nonsense")
    canaries = Canaries(path, Watch())
    assert canaries.problem is not None and "cannot be read" in canaries.problem
    with pytest.raises(CanariesFailed, match="cannot be read"):
        canaries.add(Canary("db", digest(TOKEN), 1.0))
    assert path.read_text() == "nonsense"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    async def clean(message: jsonrpc.Message) -> Said:
        return Said(Verdict("scanner", Finding.CLEAN, 0.0))

    store = Store(tmp_path / "state")
    log = EvidenceLog.open(tmp_path / "state", "s", lambda text: None)
    custody = Custody(Policy(), "s", store, Judges(clean), log)
    await custody.open()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "control.sock"))
    listener.listen()
    told = Watch()
    people = People(custody, Tokens(tmp_path / "t.json"), dict, str, lambda: None, canaries=Canaries(tmp_path / "c.json", told))
    server = ControlServer(people, frozenset({0, os.getuid()}))
    await server.start(listener)
    yield told
    server.close()
    custody.close()
    log.close()
    store.close()


@pytest.mark.anyio
async def test_the_command_line_makes_shows_and_removes_canaries(tmp_path: Path, watch: Watch) -> None:
    async def holdfast(*words: str) -> tuple[int, str]:
        run = await asyncio.to_thread(CliRunner().invoke, app, ["canary", *words, "--json", "--runtime-dir", str(tmp_path)])
        return run.exit_code, run.output or str(run.exception)

    code, output = await holdfast("new", "--name", "payroll")
    made = json.loads(output)
    assert code == 0
    assert watch.told == {digest(made["token"]): "payroll"}
    code, output = await holdfast("new")
    assert json.loads(output)["name"].startswith("canary-")
    code, output = await holdfast("ls")
    assert json.loads(output)[0]["name"] == "payroll"
    assert made["token"][4:] not in output
    assert (await holdfast("new", "--name", "No Good"))[0] == 2
    assert "with this name" in (await holdfast("new", "--name", "payroll"))[1]
    assert (await holdfast("rm", "payroll"))[0] == 0
    assert "payroll" not in watch.told.values()
    assert "no canary with this name" in (await holdfast("rm", "payroll"))[1]
