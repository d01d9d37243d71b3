"""An OpenAI-compatible endpoint for tests, honest or not: a real server on loopback whose every answer the test writes.

It speaks HTTP over plain sockets, so that it can break every rule of it.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

Behaviour = Callable[["Asked", socket.socket], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def system(self) -> str:
        return str(self.body["messages"][0]["content"])

    @property
    def user(self) -> str:
        return str(self.body["messages"][1]["content"])

    @property
    def nonce(self) -> str:
        found = re.search(r'"nonce": the string ([0-9a-f]+)', self.system)
        assert found is not None
        return found.group(1)

    @property
    def boundary(self) -> str:
        found = re.search(r"the boundary ([0-9a-f]+)", self.system)
        assert found is not None
        return found.group(1)

    def answer(self, injection: bool, confidence: float = 0.95, why: str | None = None, nonce: str | None = None) -> str:
        """The content an honest model gives."""
        table = {"nonce": nonce or self.nonce, "injection": injection, "confidence": confidence, "why": why or ("instruction" if injection else "benign")}
        return json.dumps(table)


def completion(content: object, finish_reason: str = "stop", **more: object) -> bytes:
    """A chat completion with that content."""
    message = {"role": "assistant", "content": content, "refusal": None} | more
    return json.dumps(
        {"id": "c-1", "object": "chat.completion", "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}], "usage": {}}
    ).encode()


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole response."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def says(injection: bool, confidence: float = 0.95, why: str | None = None) -> Behaviour:
    """An honest model of that opinion."""
    return lambda asked, client: client.sendall(http(completion(asked.answer(injection, confidence, why))))


def content(make: Callable[[Asked], object]) -> Behaviour:
    """A model whose message has that content."""
    return lambda asked, client: client.sendall(http(completion(make(asked))))


def raw(whole: bytes) -> Behaviour:
    return lambda _, client: client.sendall(whole)


class FakeEndpoint:
    """Serves until left. behaviour: may be changed at any time. asked: every request, in order."""

    def __init__(self, behaviour: Behaviour, tls: ssl.SSLContext | None = None, listener: socket.socket | None = None) -> None:
        self.behaviour = behaviour
        self.asked: list[Asked] = []
        self.came = threading.Event()
        self.over = threading.Event()
        """Set when the test is: what stalls, stalls until then."""
        self._tls = tls
        self._listener = listener or socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._clients: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1" if self._tls is None else f"https://localhost:{self.port}/v1"

    def __enter__(self) -> FakeEndpoint:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._clients:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            self._start(lambda client=client: self._serve(client))  # type: ignore[misc]

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            with client:
                while (asked := _read(client)) is not None:
                    self.asked.append(asked)
                    self.came.set()
                    self.behaviour(asked, client)
        except OSError:
            return  # the member left in the middle, as some tests make it


def _read(client: socket.socket) -> Asked | None:
    got = b""
    while b"\r\n\r\n" not in got:
        part = client.recv(65536)
        if not part:
            return None
        got += part
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", "0")):
        body += client.recv(65536)
    return Asked(lines[0].split(" ")[1], headers, json.loads(body) if body else {})
