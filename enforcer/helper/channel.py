"""The daemon's end of the channel to the helper.

The helper is not trusted to send sense either: one packet that does not fit ends the daemon, as does the end of the connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable
from typing import NoReturn

from pydantic import ValidationError

from enforcer.helper import wire
from enforcer.helper.messages import (
    CARRIES_DESCRIPTOR,
    FROM_HELPER,
    Accepting,
    Answer,
    AskStop,
    ChildEnded,
    ChildStarted,
    CountersRead,
    Enforcing,
    Fact,
    NotEnforcing,
    OpenUpstream,
    ReadCounters,
    Request,
    Stop,
    UpstreamFailed,
    UpstreamOpened,
)

_ANSWER_S = 15.0  # the helper's own bound for a connection is shorter


class UpstreamError(OSError):
    """No connection to the server. `str()` is ours, safe to show."""


class UpstreamRefused(UpstreamError):
    """The server does not listen there (or the helper would not connect there)."""


class UpstreamTimeout(UpstreamError):
    """It did not answer in time."""


FactHeard = Callable[[Fact, socket.socket | None], None]
"""Called in the event loop for each fact; the socket, with `ChildStarted` alone, is the callee's to close."""


class HelperChannel:
    """Build it in the running loop. on_end: called once when the helper is gone or not to be trusted; by default the process ends."""

    def __init__(self, channel: socket.socket, heard: FactHeard, on_end: Callable[[str], None] | None = None) -> None:
        self._socket = channel
        self._heard = heard
        self._on_end: Callable[[str], None] = on_end or _exit
        self._waiting: dict[int, asyncio.Future[tuple[Answer, socket.socket | None]]] = {}
        self._next_id = 0
        self._ended = False
        channel.setblocking(False)
        asyncio.get_running_loop().add_reader(channel.fileno(), self._readable)

    async def open_upstream(self, local: str, remote: str) -> socket.socket:
        """A non-blocking socket connected to the guarded port at `remote`, bound to `local`. Both are IP addresses of the guarded
        namespace; a link-local one names its interface by number (`fe80::1%2`). IPv4-mapped ones count as IPv4.

        Raises:
            UpstreamRefused, UpstreamTimeout.
        """
        (local_address, scope), (remote_address, _) = _address(local), _address(remote)
        identifier = self._new_id()
        request = OpenUpstream(id=identifier, local=local_address, remote=remote_address, scope=scope)
        answer, opened = await self._ask(identifier, request)
        if isinstance(answer, UpstreamOpened) and opened is not None:
            return opened
        if isinstance(answer, UpstreamFailed):
            raise (UpstreamTimeout if answer.kind == "timeout" else UpstreamRefused)(answer.text)
        self._end("an answer does not fit its question")
        raise UpstreamRefused("the helper is gone")

    async def counters(self) -> CountersRead:
        """What the steering program has counted since the start. Raises UpstreamTimeout."""
        identifier = self._new_id()
        answer, _ = await self._ask(identifier, ReadCounters(id=identifier))
        if isinstance(answer, CountersRead):
            return answer
        self._end("an answer does not fit its question")
        raise UpstreamRefused("the helper is gone")

    def say_ready(self) -> None:
        """The gate accepts: connections may be steered here."""
        self._send(Accepting())

    def ask_stop(self) -> None:
        """An operator wants this instance to end; a `Stop` fact follows."""
        self._send(AskStop())

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    async def _ask(self, identifier: int, request: Request) -> tuple[Answer, socket.socket | None]:
        future: asyncio.Future[tuple[Answer, socket.socket | None]] = asyncio.get_running_loop().create_future()
        self._waiting[identifier] = future
        try:
            self._send(request)
            async with asyncio.timeout(_ANSWER_S):
                return await future
        except TimeoutError:
            _discard_result(future)
            raise UpstreamTimeout("the helper did not answer") from None
        except asyncio.CancelledError:
            _discard_result(future)  # it came in the same moment
            raise
        finally:
            del self._waiting[identifier]

    def _send(self, request: Request) -> None:
        if self._ended:
            raise UpstreamRefused("the helper is gone")
        try:
            wire.send(self._socket, request)
        except (OSError, wire.Malformed):
            self._end("the helper is gone")
            raise UpstreamRefused("the helper is gone") from None

    def _readable(self) -> None:
        while not self._ended:
            try:
                packet = wire.receive(self._socket)
            except BlockingIOError:
                return
            except (OSError, wire.Malformed):
                return self._end("the helper's packets cannot be read")
            if packet is None:
                return self._end("the helper is gone")
            data, descriptors = packet
            try:
                message = FROM_HELPER.validate_json(data)
            except ValidationError:
                wire.close(descriptors)
                return self._end("the helper's packets cannot be read")
            if len(descriptors) != isinstance(message, CARRIES_DESCRIPTOR):
                wire.close(descriptors)
                return self._end("the helper's packets cannot be read")
            self._take(message, _as_socket(descriptors[0]) if descriptors else None)

    def _take(self, message: Answer | Fact, passed: socket.socket | None) -> None:
        if isinstance(message, Enforcing | NotEnforcing | ChildStarted | ChildEnded | Stop):
            self._heard(message, passed)
            return
        future = self._waiting.get(message.id)
        if future is not None and not future.done():
            future.set_result((message, passed))
        else:  # whoever asked has given up
            _discard(passed)

    def _end(self, why: str) -> None:
        if self._ended:
            return
        self.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(UpstreamRefused(why))
        self._on_end(why)


def _discard_result(future: asyncio.Future[tuple[Answer, socket.socket | None]]) -> None:
    if future.done() and not future.cancelled() and future.exception() is None:
        _discard(future.result()[1])


def _discard(passed: socket.socket | None) -> None:
    if passed is not None:
        passed.close()


def _as_socket(descriptor: int) -> socket.socket:
    passed = socket.socket(fileno=descriptor)
    passed.setblocking(False)
    return passed


def _address(text: str) -> tuple[str, int]:
    """The bare address and its interface's number (0 without)."""
    address = ipaddress.ip_address(text)
    if address.version == 4:
        return str(address), 0
    if address.ipv4_mapped:
        return str(address.ipv4_mapped), 0
    bare, _, scope = text.partition("%")
    return bare, int(scope) if scope.isdecimal() else 0


def _exit(_why: str) -> NoReturn:
    os._exit(1)
