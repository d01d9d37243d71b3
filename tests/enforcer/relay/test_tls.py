"""TLS towards clients and towards the server: the same exchanges, waits and deliveries."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from enforcer.relay.listener import Listener
from escrow.item import State
from tests.enforcer.relay.rig import LIMIT_S, PATIENT, SECRET, Client, call, gate, reply, result, stream, until

pytestmark = pytest.mark.anyio
BAD = result(SECRET)


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(a server's, a client's that trusts it), for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(hours=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (tmp_path / "cert").write_bytes(pem)
    (tmp_path / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    return server, ssl.create_default_context(cadata=pem.decode())


@pytest.mark.parametrize("answer", [reply(BAD), stream(b"data: " + BAD + b"\n\n")], ids=["body", "events"])
async def test_a_held_result_reaches_a_tls_client_once_it_is_approved(answer: bytes, contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path) -> None:
    async with gate(tmp_path, PATIENT, reply(result("ok")), answer) as rig:
        sock = socket.create_server(("127.0.0.1", 0))
        listener = Listener(rig.listener.context, None, contexts[0])
        await listener.start((sock,))
        client = Client(*await asyncio.open_connection("localhost", sock.getsockname()[1], ssl=contexts[1]))
        try:
            for cut in (1, 200):
                await client.send(call(n=1)[:cut])
                await client.send(call(n=1)[cut:])
                if cut == 1:
                    assert (await client.response()).body == result("ok")
            item_id = await rig.held()
            await rig.custody.approve(item_id, "alice", "read it", (await rig.custody.item(item_id)).result_sha256)
            assert BAD in (await client.response()).body
            await until(lambda: rig.store.get(item_id).state is State.DELIVERED)
        finally:
            await client.close()
            await listener.stop()


async def test_a_tls_client_that_vanishes_is_noticed(contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path) -> None:
    async with gate(tmp_path, PATIENT, reply(BAD)) as rig:
        sock = socket.create_server(("127.0.0.1", 0))
        listener = Listener(rig.listener.context, None, contexts[0])
        await listener.start((sock,))
        client = Client(*await asyncio.open_connection("localhost", sock.getsockname()[1], ssl=contexts[1]))
        await client.send(call())
        item_id = await rig.held()
        await client.close()
        await until(lambda: rig.store.get(item_id).orphaned)
        await listener.stop()


async def test_the_servers_certificate_is_verified(contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path) -> None:
    async with gate(tmp_path, PATIENT, reply(result("ok"))) as rig:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await rig.server.serve(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=contexts[0])
        rig.server.port = server.sockets[0].getsockname()[1]
        upstream = rig.listener.context.upstream
        upstream._hostname = "localhost"
        try:
            async with asyncio.timeout(LIMIT_S):
                upstream._tls = ssl.create_default_context()
                assert (await rig.ask(call())).json["error"]["code"] == -32093 and rig.server.asked == []
                upstream._tls = contexts[1]
                assert (await rig.ask(call())).body == result("ok")
        finally:
            upstream.close()
            server.close()
