"""The control socket: every command typed, nobody else's, and answers that say what happened."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from enforcer.control.client import Refused, Unreachable, ask
from enforcer.control.people import People, name_of
from enforcer.control.server import ControlServer
from enforcer.control.tokens import Tokens
from enforcer.custody import Arrival, Custody, Judges, Said, Ticket
from enforcer.evidence import EvidenceLog
from enforcer.store import Store
from escrow import jsonrpc
from escrow.call import Call, Transport
from escrow.policy import Policy
from escrow.principal import from_address
from escrow.verdict import Finding, Verdict

pytestmark = pytest.mark.anyio
ME = from_address("192.0.2.1")
RAW = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"a bad word"}],"structuredContent":{"word":"bad"}}}'


async def judge(message: jsonrpc.Message) -> Said:
    return Said(Verdict("scanner", Finding.HOSTILE if b"bad" in message.raw else Finding.CLEAN, 0.5))


class Desk:
    """A control socket over a real custody, and how a command line asks it."""

    def __init__(self, custody: Custody, path: Path) -> None:
        self.custody, self.path = custody, path

    async def ask(self, op: str, **args: Any) -> Any:
        return await asyncio.to_thread(ask, self.path, op, 5.0, **args)

    async def raw(self, line: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(line)
        writer.write_eof()
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def hold(self) -> Ticket:
        call = Call("s", ME, None, Transport.SESSION, 1, "tools/call", "read", "a" * 64)
        ticket = await self.custody.receive(Arrival(jsonrpc.read(RAW), call, "s", ME, None, Transport.SESSION, time.monotonic()))
        assert isinstance(ticket, Ticket)
        return ticket


async def serve(folder: Path, uids: frozenset[int]) -> AsyncIterator[Desk]:
    store = Store(folder / "state")
    log = EvidenceLog.open(folder / "state", "s", lambda text: None)
    custody = Custody(Policy(), "s", store, Judges(judge), log)
    await custody.open()
    path = folder / "control.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    server = ControlServer(People(custody, Tokens(folder / "tokens.json"), lambda: {"port": 1}, lambda marked: "n", lambda: None), uids)
    await server.start(listener)
    yield Desk(custody, path)
    server.close()
    custody.close()
    log.close()
    store.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async for made in serve(tmp_path, frozenset({os.getuid()})):
        yield made


@pytest.fixture
async def strangers_desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async for made in serve(tmp_path, frozenset({os.getuid() + 1})):
        yield made


async def test_a_stranger_gets_no_answer(strangers_desk: Desk) -> None:
    with pytest.raises(Unreachable, match="only root and the user"):
        await strangers_desk.ask("status")


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n",
        b"[]\n",
        b"not json\n",
        b'{"op":"nonsense"}\n',
        b'{"op":"status","more":1}\n',
        b'{"op":"escrow.show","id":"../../etc/passwd"}\n',
        b'{"op":"escrow.deny","id":"hf-0123456789","why":""}\n',
        b'{"op":"escrow.ls","limit":-1}\n',
    ],
)
async def test_what_is_no_command_is_refused_with_its_place(desk: Desk, line: bytes) -> None:
    assert "refused" in json.loads(await desk.raw(line))


async def test_who_is_asked_about_is_there_or_is_said_not_to_be(desk: Desk) -> None:
    for op, args in (("escrow.show", {}), ("escrow.deny", {"why": "w"}), ("escrow.approve", {"why": "w"}), ("escrow.shred", {}), ("escrow.replay", {})):
        with pytest.raises(Refused, match="no such item"):
            await desk.ask(op, id="hf-0123456789", **args)


async def test_a_decision_is_recorded_under_the_name_the_kernel_gives(desk: Desk) -> None:
    ticket = await desk.hold()
    row = await desk.ask("escrow.approve", id=ticket.item_id, why="read it")
    assert (row["state"], row["decided_by"], row["reason"]) == ("approved", name_of(os.getuid()), "read it")
    assert (await ticket.outcome()).raw == RAW
    with pytest.raises(Refused, match="already"):
        await desk.ask("escrow.deny", id=ticket.item_id, why="late")


async def test_what_is_left_after_redaction_is_judged_again(desk: Desk) -> None:
    ticket = await desk.hold()
    with pytest.raises(Refused, match="judged HOSTILE"):
        await desk.ask("escrow.approve", id=ticket.item_id, why="w", redact="a ")
    for what in ("nowhere", "/result/nothing", "("):
        with pytest.raises(Refused):
            await desk.ask("escrow.approve", id=ticket.item_id, why="w", redact=what)
    row = await desk.ask("escrow.approve", id=ticket.item_id, why="w", redact="bad")
    assert row["released_sha256"] != row["result_sha256"] and b"bad" not in ((await ticket.outcome()).raw or b"bad")


async def test_an_approval_of_other_bytes_is_refused(desk: Desk) -> None:
    ticket = await desk.hold()
    with pytest.raises(Refused, match="other bytes"):
        await desk.ask("escrow.approve", id=ticket.item_id, why="w", result_sha256="0" * 64)


async def test_a_shredded_payload_can_be_neither_shown_nor_judged(desk: Desk) -> None:
    ticket = await desk.hold()
    assert (await desk.ask("escrow.show", id=ticket.item_id))["payload"] == RAW.decode()
    assert (await desk.ask("escrow.replay", id=ticket.item_id))["now"]["finding"] == "HOSTILE"
    await desk.ask("escrow.shred", id=ticket.item_id)
    assert (await desk.ask("escrow.show", id=ticket.item_id))["payload"] is None
    with pytest.raises(Refused, match="shredded"):
        await desk.ask("escrow.replay", id=ticket.item_id)


async def test_nobody_at_the_socket_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no Holdfast answers"):
        ask(tmp_path / "none.sock", "status")
