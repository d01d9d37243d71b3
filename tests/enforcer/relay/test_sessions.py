"""A session belongs to whom it started with: a new credential of the same peer goes on, somebody else is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.enforcer.relay.rig import SECRET, Client, Rig, call, gate, reply, result

pytestmark = pytest.mark.anyio
SESSION = b"Mcp-Session-Id: s1"


async def client_from(rig: Rig, address: str) -> Client:
    client = Client(*await asyncio.open_connection("127.0.0.1", rig.port, local_addr=(address, 0)))
    rig.clients.append(client)
    return client


async def test_a_refreshed_token_goes_on_with_its_session_and_collects_what_was_held_in_it(tmp_path: Path) -> None:
    async with gate(tmp_path) as rig:
        rig.server.answers = [reply(result("fine")), reply(result(SECRET, 2))]
        assert (await rig.ask(call(1, "read", SESSION, b"Authorization: Bearer one"))).status == 200
        first = await rig.ask(call(2, "secret", SESSION, b"Authorization: Bearer one"))
        assert first.json["result"]["isError"]
        item_id = await rig.held()
        await rig.custody.approve(item_id, "alice", "w", (await rig.custody.item(item_id)).result_sha256)
        again = await rig.ask(call(3, "secret", SESSION, b"Authorization: Bearer two"))
        assert SECRET.encode() in again.body and len(rig.server.asked) == 2


async def test_somebody_elses_session_is_refused_by_credential_and_by_address(tmp_path: Path) -> None:
    async with gate(tmp_path) as rig:
        rig.server.answers = [reply(result("fine")), reply(result("fine"))]
        assert (await rig.ask(call(1, "read", SESSION, b"Authorization: Bearer one"))).status == 200
        other = await client_from(rig, "127.0.0.2")
        await other.send(call(2, "read", SESSION, b"Authorization: Bearer two"))
        refused = await other.response()
        assert refused.status == 403 and b"belongs to somebody else" in refused.body
        bare = await rig.ask(call(3, "read", SESSION))
        assert bare.status == 403, "without a credential it is not the credential's session"
        traveller = await client_from(rig, "127.0.0.3")
        await traveller.send(call(4, "read", SESSION, b"Authorization: Bearer one"))
        assert (await traveller.response()).status == 200, "the same credential from another address is the same caller"
        assert len(rig.server.asked) == 2
