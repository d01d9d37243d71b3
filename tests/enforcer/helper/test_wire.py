"""Packets and descriptors over a real socket pair."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from enforcer.helper import wire
from enforcer.helper.messages import MAX_BYTES, Accepting, UpstreamOpened


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_message_arrives_whole_with_its_descriptor() -> None:
    one, other = wire.pair()
    with one, other, socket.socket() as passed:
        wire.send(one, UpstreamOpened(id=7), passed.fileno())
        wire.send(one, Accepting())
        data, fds = wire.receive(other) or (b"", [])
        assert UpstreamOpened.model_validate_json(data).id == 7
        assert os.path.sameopenfile(fds[0], passed.fileno())
        wire.close(fds)
        assert wire.receive(other) == (Accepting().model_dump_json().encode(), [])
        with pytest.raises(BlockingIOError):
            wire.receive(other)


def test_the_end_is_none() -> None:
    one, other = wire.pair()
    one.close()
    with other:
        assert wire.receive(other) is None


@pytest.mark.parametrize("fds", [0, 1, 40])
def test_a_packet_that_is_too_long_is_malformed_and_its_descriptors_are_closed(fds: int) -> None:
    one, other = wire.pair()
    with one, other:
        before = descriptors()
        socket.send_fds(one, [b"x" * (MAX_BYTES + 1)], [other.fileno()] * fds)
        with pytest.raises(wire.Malformed):
            wire.receive(other)
        assert descriptors() == before


def test_too_many_descriptors_are_malformed_and_closed() -> None:
    one, other = wire.pair()
    with one, other:
        before = descriptors()
        socket.send_fds(one, [b"x"], [other.fileno()] * 40)
        with pytest.raises(wire.Malformed):
            wire.receive(other)
        assert descriptors() == before


def test_a_peer_that_does_not_read_is_given_up_rather_than_waited_for() -> None:
    one, other = wire.pair()
    with one, other, pytest.raises(wire.Malformed, match="does not read"):
        for _ in range(100_000):
            wire.send(one, Accepting())
