"""A gate in this process, with raw bytes on both sides: a scripted server behind it, raw clients before it, the real store beneath."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enforcer.custody import Custody, Judges, Said
from enforcer.evidence import EvidenceLog
from enforcer.relay.context import Context
from enforcer.relay.identity import Identity
from enforcer.relay.listener import Listener
from enforcer.relay.responder import Responder
from enforcer.relay.sessions import Sessions
from enforcer.relay.upstream import Upstream
from enforcer.store import Store
from escrow import jsonrpc
from escrow.policy import Escrow, Policy
from escrow.verdict import Finding, Reason, Verdict

SECRET = "xylophone-quartz"
"""What the tiny judge holds, and what no client may see undecided."""

LIMIT_S = 5.0
QUICK = Policy(escrow=Escrow(claim_after_s=0.05))
PATIENT = Policy(escrow=Escrow(claim_after_s=60))


async def judge(message: jsonrpc.Message) -> Said:
    """HOSTILE where the secret stands in any value or key, as parsed."""
    value = message.value if isinstance(message, jsonrpc.Response) else [message.method, message.params]
    if SECRET in json.dumps(value, ensure_ascii=False):
        return Said(Verdict("scanner", Finding.HOSTILE, 1.0, (Reason("rule.test", "It stands there.", "/result"),)))
    return Said(Verdict("scanner", Finding.CLEAN, 0.0))


def quick(message: jsonrpc.Message) -> Said | None:
    """The same at once, of what is clean."""
    value = message.value if isinstance(message, jsonrpc.Response) else [message.method, message.params]
    return None if SECRET in json.dumps(value, ensure_ascii=False) else Said(Verdict("scanner", Finding.CLEAN, 0.0))


AT_ONCE = Judges(judge, quick)
SLOWLY = Judges(judge)
BOTH_WAYS = Judges(judge, quick, judge, quick)
"""Also what goes out is judged."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait, within bounds, for something to become true."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110  conditions of objects under test, which have no events of their own
            await asyncio.sleep(0.002)


@dataclass
class Asked:
    """A request as it reached the server, byte for byte."""

    head: bytes
    body: bytes


Answer = bytes | Callable[["Server", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Answers each request with the next scripted answer. bytes: sent as they are, then closed unless they say how long they are."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].partition(b":")[2])) if lengths else b""
                self.asked.append(Asked(head, body))
                answer = self.answers.pop(0) if self.answers else b"HTTP/1.1 500 Unscripted\r\ncontent-length: 0\r\n\r\n"
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                    if b"content-length:" not in answer.lower() and b"chunked" not in answer.lower():
                        return
                else:
                    await answer(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@dataclass
class Response:
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A raw connection to the gate. `seen` has every byte that ever came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.seen = reader, writer, b""

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def _read(self, work: Awaitable[bytes]) -> bytes:
        async with asyncio.timeout(LIMIT_S):
            data = await work
        self.seen += data
        return data

    async def response(self, *, bodiless: bool = False) -> Response:
        """The next whole response."""
        head = await self._read(self.reader.readuntil(b"\r\n\r\n"))
        first, *lines = head[:-4].split(b"\r\n")
        headers = dict((line.partition(b":")[0].lower(), line.partition(b":")[2].strip()) for line in lines)
        status = int(first.split()[1])
        body = b""
        if headers.get(b"transfer-encoding") == b"chunked":
            while True:
                size = int(await self._read(self.reader.readuntil(b"\r\n")), 16)
                body += (await self._read(self.reader.readexactly(size + 2)))[:-2]
                if size == 0:
                    break
        elif not bodiless and b"content-length" in headers:
            body = await self._read(self.reader.readexactly(int(headers[b"content-length"])))
        return Response(status, headers, body)

    async def event(self) -> bytes:
        """The next chunk of an event stream."""
        size = int(await self._read(self.reader.readuntil(b"\r\n")), 16)
        return (await self._read(self.reader.readexactly(size + 2)))[:-2]

    async def rest(self) -> bytes:
        """Everything until the gate closes."""
        return await self._read(self.reader.read())

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass
class Rig:
    server: Server
    custody: Custody
    store: Any
    listener: Listener
    port: int
    clients: list[Client] = field(default_factory=list)

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def ask(self, raw: bytes, **how: bool) -> Response:
        """One request on a connection of its own."""
        client = await self.client()
        await client.send(raw)
        return await client.response(**how)

    async def held(self, count: int = 1) -> str:
        """Wait until so many items were held; the id of the newest."""
        await until(lambda: self.custody.counters.held >= count)
        return str([record for record in self.custody.recent if record.get("item")][-1]["item"])

    def leaked(self) -> bool:
        return any(SECRET.encode() in client.seen for client in self.clients)


@asynccontextmanager
async def gate(folder: Path, policy: Policy = QUICK, *answers: Answer, store: Any = None, judges: Judges = AT_ONCE) -> AsyncIterator[Rig]:
    """A gate and its server, both on ports of their own."""
    server = Server(list(answers))
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=1 << 26)
    server.port = listening.sockets[0].getsockname()[1]
    store = store or Store(folder / "state")
    log = EvidenceLog.open(folder / "state", "demo", lambda text: None)
    custody = Custody(policy, "demo", store, judges, log)
    await custody.open()

    async def opener(_client: socket.socket) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
        except BaseException:
            sock.close()
            raise
        return sock

    upstream = Upstream(opener, policy.bounds.head_bytes, policy.bounds.connect_s)
    context = Context(policy, "demo", custody, upstream, Sessions(), Identity(policy.principal, None, None), Responder())
    listener = Listener(context, None, None)
    sock = socket.create_server(("127.0.0.1", 0))
    await listener.start((sock,))
    rig = Rig(server, custody, store, listener, sock.getsockname()[1])
    try:
        yield rig
    finally:
        for client in rig.clients:
            await client.close()
        await listener.stop()
        upstream.close()
        listening.close()
        await listening.wait_closed()
        custody.close()
        log.close()
        store.close()


def post(body: Any, *headers: bytes, path: bytes = b"/mcp") -> bytes:
    """A POST with a JSON body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: gate", b"Content-Type: application/json", b"Content-Length: %d" % len(raw), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + raw


def call(call_id: int | str = 1, name: str = "read", *headers: bytes, **arguments: Any) -> bytes:
    return post({"jsonrpc": "2.0", "id": call_id, "method": "tools/call", "params": {"name": name, "arguments": arguments}}, *headers)


def result(text: str, call_id: Any = 1) -> bytes:
    """A tool's result as a JSON-RPC message."""
    return json.dumps({"jsonrpc": "2.0", "id": call_id, "result": {"content": [{"type": "text", "text": text}]}}).encode()


def reply(body: bytes, *headers: bytes, status: bytes = b"200 OK", kind: bytes = b"application/json") -> bytes:
    """A response with a Content-Length."""
    return b"\r\n".join([b"HTTP/1.1 " + status, b"Content-Type: " + kind, b"Content-Length: %d" % len(body), *headers]) + b"\r\n\r\n" + body


def chunked(*chunks: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK", end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 " + status + b"\r\nContent-Type: " + kind + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def stream(*chunks: bytes) -> bytes:
    """A whole event stream."""
    return chunked(*chunks, kind=b"text/event-stream")
