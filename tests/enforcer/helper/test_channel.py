"""The daemon's end, against a helper that sends what it likes."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from enforcer.helper import wire
from enforcer.helper.channel import HelperChannel, UpstreamRefused, UpstreamTimeout
from enforcer.helper.messages import REQUESTS, ChildStarted, Enforcing, Fact, NotEnforcing, OpenUpstream, UpstreamFailed, UpstreamOpened

pytestmark = pytest.mark.anyio


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Daemon:
    def __init__(self) -> None:
        self.helper, ours = wire.pair()
        self.facts: list[Fact] = []
        self.came = asyncio.Event()
        self.passed: list[socket.socket] = []
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.channel = HelperChannel(ours, self._heard, self.ended.set_result)

    def _heard(self, fact: Fact, passed: socket.socket | None) -> None:
        self.facts.append(fact)
        self.came.set()
        if passed is not None:
            self.passed.append(passed)

    async def heard(self, count: int) -> None:
        while len(self.facts) < count:
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), 5)

    async def request(self) -> object:
        loop = asyncio.get_running_loop()
        return REQUESTS.validate_json(await asyncio.wait_for(loop.sock_recv(self.helper, 5000), 5))

    def close(self) -> None:
        self.channel.close()
        self.helper.close()
        for each in self.passed:
            each.close()


async def test_an_upstream_is_asked_for_and_handed_over() -> None:
    daemon = Daemon()
    asking = asyncio.ensure_future(daemon.channel.open_upstream("::ffff:127.0.0.1", "127.0.0.1"))
    asked = await daemon.request()
    assert asked == OpenUpstream(id=1, local="127.0.0.1", remote="127.0.0.1")
    with socket.socket() as made:
        wire.send(daemon.helper, UpstreamOpened(id=1), made.fileno())
        opened = await asyncio.wait_for(asking, 5)
    assert opened.getblocking() is False
    opened.close()
    daemon.close()


async def test_a_link_local_address_names_its_interface() -> None:
    daemon = Daemon()
    asking = asyncio.ensure_future(daemon.channel.open_upstream("fe80::1%3", "fe80::1%3"))
    assert await daemon.request() == OpenUpstream(id=1, local="fe80::1", remote="fe80::1", scope=3)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    daemon.close()


@pytest.mark.parametrize(
    ("kind", "error"), [("refused", UpstreamRefused), ("timeout", UpstreamTimeout), ("denied", UpstreamRefused), ("busy", UpstreamRefused)]
)
async def test_a_failure_is_the_error_of_its_kind(kind: str, error: type[Exception]) -> None:
    daemon = Daemon()
    asking = asyncio.ensure_future(daemon.channel.open_upstream("127.0.0.1", "127.0.0.1"))
    await daemon.request()
    wire.send(daemon.helper, UpstreamFailed.model_validate({"id": 1, "kind": kind, "text": "because"}))
    with pytest.raises(error, match="because"):
        await asyncio.wait_for(asking, 5)
    daemon.close()


async def test_an_answer_to_a_question_given_up_on_is_closed() -> None:
    daemon = Daemon()
    asking = asyncio.ensure_future(daemon.channel.open_upstream("127.0.0.1", "127.0.0.1"))
    await daemon.request()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    one, other = socket.socketpair()
    with one:
        with other:
            wire.send(daemon.helper, UpstreamOpened(id=1), other.fileno())
        wire.send(daemon.helper, Enforcing())
        await daemon.heard(1)
        assert one.recv(1) == b"", "the last copy is gone"
    daemon.close()


async def test_facts_are_heard_in_order() -> None:
    daemon = Daemon()
    wire.send(daemon.helper, NotEnforcing(why="x"))
    with socket.socket() as made:
        wire.send(daemon.helper, ChildStarted(child="worker", number=3), made.fileno())
    wire.send(daemon.helper, Enforcing())
    await daemon.heard(3)
    assert daemon.facts == [NotEnforcing(why="x"), ChildStarted(child="worker", number=3), Enforcing()]
    assert len(daemon.passed) == 1
    daemon.close()


@pytest.mark.parametrize(
    "packet",
    [b"x", b"{}", b'{"type":"accepting"}', b'{"type":"stop","more":1}', b'{"type":"upstream_opened","id":1}',
     b'{"type":"child_started","child":"worker","number":1}', b'{"type":"not_enforcing","why":"' + b"x" * 600 + b'"}', b"x" * 5000],
)  # fmt: skip
async def test_a_helper_that_sends_what_does_not_fit_is_the_end(packet: bytes) -> None:
    daemon = Daemon()
    asking = asyncio.ensure_future(daemon.channel.open_upstream("127.0.0.1", "127.0.0.1"))
    await daemon.request()
    daemon.helper.send(packet)
    assert await asyncio.wait_for(daemon.ended, 5)
    with pytest.raises(UpstreamRefused):
        await asking
    with pytest.raises(UpstreamRefused):
        await daemon.channel.open_upstream("127.0.0.1", "127.0.0.1")
    daemon.close()


async def test_descriptors_that_do_not_belong_there_are_closed() -> None:
    daemon = Daemon()
    before = descriptors()
    socket.send_fds(daemon.helper, [Enforcing().model_dump_json().encode()], [0, 1])
    await asyncio.wait_for(daemon.ended, 5)
    assert descriptors() == before - 1, "the channel itself"
    daemon.close()


async def test_the_helpers_end_is_the_end() -> None:
    daemon = Daemon()
    daemon.helper.close()
    assert await asyncio.wait_for(daemon.ended, 5) == "the helper is gone"
    daemon.close()
