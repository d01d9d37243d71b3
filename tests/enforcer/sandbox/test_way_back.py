"""Clones between daemon and keeper: what is asked, what is bounded, and that one which nobody waits for any more goes."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest

from enforcer.exactly import receive
from enforcer.sandbox import frames, way_back
from enforcer.sandbox.client import Twins
from enforcer.sandbox.way_back import KEPT_S, MOST, Order, Told
from escrow.sandbox.settings import SandboxSettings

TOKEN = "0" * 32


def settings(folder: Path, **more: object) -> SandboxSettings:
    return SandboxSettings.model_validate({"command": ["/bin/true"], "state": [{"kind": "directory", "path": str(folder)}], "revert": True, **more})


class Keeper:
    """The far end, in the test's hands."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)

    async def asked(self) -> tuple[int, str, Order]:
        async with asyncio.timeout(5):
            number, phase, head_bytes, raw_bytes = frames.read_question(await receive(self.sock, frames.QUESTION.size))
            head, raw = await receive(self.sock, head_bytes), await receive(self.sock, raw_bytes)
        assert phase is frames.Phase.WAY_BACK
        return number, frames.read_asked(head).server, way_back.read_order(raw)

    async def tell(self, number: int, told: Told) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, frames.told(number, way_back.told_bytes(told)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("text")
    return tmp_path / "data"


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["it was cancelled", "it had waited too long"])
async def test_a_clone_whose_asker_left_is_forgotten_when_it_comes(how: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enforcer.sandbox.client.GRACE_S", 0.01 if "long" in how else 5)
    near, far = socket.socketpair()
    twins, keeper = Twins({"s": settings(data, snapshot_ms=1)}), Keeper(far)
    twins.add(near)
    try:
        asking = asyncio.ensure_future(twins.way_back("s", Order("take")))
        number, server, order = await keeper.asked()
        assert (server, order) == ("s", Order("take"))
        if "cancelled" in how:
            asking.cancel()
            await asyncio.wait({asking})
        else:
            assert (await asking).why == "the keeper of the twins is silent"
        await keeper.tell(number, Told(TOKEN))
        assert (await keeper.asked())[1:] == ("s", Order("forget", TOKEN))
    finally:
        await twins.close()
        far.close()


@pytest.mark.anyio
async def test_without_a_keeper_or_a_twin_it_says_so(data: Path) -> None:
    twins = Twins({"s": settings(data)}, missing="runsc is not installed")
    assert (await twins.way_back("s", Order("take"))).why == "runsc is not installed"
    assert (await twins.way_back("other", Order("take"))).why == "the policy has no twin of this server"


@pytest.mark.root
def test_no_more_clones_are_kept_than_there_may_be(data: Path, tmp_path: Path) -> None:
    keeps = settings(data, snapshot_ms=5000)
    tokens = [way_back.carry_out(tmp_path, keeps, Order("take")).token for _ in range(MOST)]
    assert None not in tokens and len(set(tokens)) == MOST
    assert "clones of this server are kept" in way_back.carry_out(tmp_path, keeps, Order("take")).why
    way_back.carry_out(tmp_path, keeps, Order("forget", tokens[0] or ""))
    assert way_back.carry_out(tmp_path, keeps, Order("take")).token is not None


@pytest.mark.root
def test_a_keeper_that_starts_keeps_what_can_be_put_back_and_is_not_too_old(data: Path, tmp_path: Path) -> None:
    keeps = settings(data, snapshot_ms=5000)
    unsettled, settled, old = (way_back.carry_out(tmp_path, keeps, Order("take")).token or "" for _ in range(3))
    for token in (settled, old):
        assert way_back.carry_out(tmp_path, keeps, Order("settle", token)).why == ""
    past = time.time() - KEPT_S - 60
    os.utime(tmp_path / "reverts" / old, (past, past))
    way_back.sweep(tmp_path)
    assert [path.name for path in (tmp_path / "reverts").iterdir()] == [settled] and unsettled != settled


@pytest.mark.root
@pytest.mark.parametrize("token", ["../data", "..", "/", ""])
def test_forgetting_removes_clones_alone(token: str, data: Path, tmp_path: Path) -> None:
    way_back.carry_out(tmp_path, settings(data), Order("forget", token))
    assert (data / "file").read_text() == "text"
