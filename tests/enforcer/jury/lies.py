"""Endpoints that are anything but honest, and what each is recorded as."""

from __future__ import annotations

import socket
import struct
import threading

from tests.enforcer.jury.endpoint import Asked, Behaviour, completion, content, http, raw, says

ONE_GIB = 1 << 30
over = threading.Event()
"""Ends what drips and stalls."""


def drips(asked: Asked, client: socket.socket) -> None:
    """A whole and proper answer, a byte at a time, slower than anybody would wait."""
    whole = http(completion(asked.answer(False)))
    for byte in whole:
        client.sendall(bytes([byte]))
        if over.wait(0.02):
            return


def floods(_: Asked, client: socket.socket) -> None:
    client.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {ONE_GIB}\r\n\r\n".encode())
    sent = 0
    while sent < ONE_GIB:
        sent += client.send(b" " * 65536)


def floods_in_chunks(_: Asked, client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = 0
    while sent < ONE_GIB:
        sent += 65536
        client.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def breaks_off(asked: Asked, client: socket.socket) -> None:
    client.sendall(http(completion(asked.answer(False)))[:-20])
    client.shutdown(socket.SHUT_RDWR)


def resets(_: Asked, client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def calls_a_tool(asked: Asked, client: socket.socket) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "release", "arguments": "{}"}}
    client.sendall(http(completion(asked.answer(False), tool_calls=[call])))


LIES: list[tuple[str, Behaviour, str]] = [
    ("no JSON", content(lambda _: "It is clean."), "jury.malformed"),
    ("words around it", content(lambda asked: "Sure! " + asked.answer(False)), "jury.malformed"),
    ("a code fence", content(lambda asked: f"```json\n{asked.answer(False)}\n```"), "jury.malformed"),
    ("two objects", content(lambda asked: 2 * asked.answer(False)), "jury.malformed"),
    ("a key twice", content(lambda asked: asked.answer(True)[:-1] + ',"injection":false,"why":"benign"}'), "jury.malformed"),
    ("another nonce", content(lambda asked: asked.answer(False, nonce="0" * 32)), "jury.forged"),
    ("the boundary as nonce", content(lambda asked: asked.answer(False, nonce=asked.boundary)), "jury.forged"),
    ("not sure", says(False, 0.5), "jury.doubt"),
    ("a tool call", calls_a_tool, "jury.incomplete"),
    ("cut by length", lambda asked, client: client.sendall(http(completion(asked.answer(False), "length"))), "jury.incomplete"),
    ("a refusal", lambda _, client: client.sendall(http(completion(None, refusal="I cannot help with that."))), "jury.declined"),
    ("a page", raw(http(b"<html>OK</html>")), "jury.malformed"),
    ("compressed", lambda asked, client: client.sendall(http(completion(asked.answer(False)), "200 OK", "Content-Encoding: gzip")), "jury.malformed"),
    ("no HTTP", raw(b"220 mail.example ESMTP\r\n\r\n"), "jury.broken"),
    ("an endless head", raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 400_000), "jury.broken"),
    ("one GiB", floods, "jury.oversized"),
    ("one GiB in chunks", floods_in_chunks, "jury.oversized"),
    ("just too much", lambda asked, client: client.sendall(http(completion(asked.answer(False)) + b" " * 65536)), "jury.oversized"),
    ("broken off", breaks_off, "jury.broken"),
    ("reset", resets, "jury.broken"),
    ("forbidden", raw(http(b"{}", "403 Forbidden")), "jury.refused"),
    ("not found", raw(http(b"{}", "404 Not Found")), "jury.refused"),
    ("bad request", raw(http(b"{}", "400 Bad Request")), "jury.refused"),
    ("no content", raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "jury.refused"),
]
