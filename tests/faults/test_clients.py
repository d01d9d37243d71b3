"""A thousand clients that stall, each in its way: the next honest one is served at once, memory stays bounded, and the stalled ones are let go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.faults import world
from tests.faults.world import Client, Upstream, control, request, until
from tests.real import gate as gates
from tests.real.conftest import FULL
from tests.real.gate import Gate

THOUSAND = 1000
STREAMS = 1000 if FULL else 50
"""Streams cost the server behind a thread each, and the judges their first events."""
POLICY = world.ONE_WORKER + "[bounds]\nhead_s = 2\n"
HONEST_S = 10.0 if not FULL else 60.0
MAX_GROWTH_BYTES = 400 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with world.upstream(tmp_path_factory.mktemp("upstream") / "server") as running:
        yield running


@pytest.fixture(scope="module")
def gate(server: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with gates.run(tmp_path_factory.mktemp("stalled"), server.port, policy=POLICY) as running:
        world.assert_served(running.port)
        yield running


def _resident_bytes(gate: Gate) -> int:
    lines = Path(f"/proc/{gate.program.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


def _assert_honest_is_served(gate: Gate) -> None:
    began = time.monotonic()
    world.assert_served(gate.port)
    assert time.monotonic() - began < HONEST_S
    assert control(gate, "status")["enforcing"]


def _is_served(gate: Gate) -> bool:
    with suppress(TimeoutError):
        return bool(world.ask_once(gate.port, "clean"))
    return False


def _crowd(stack: ExitStack, gate: Gate, count: int, receive_bytes: int | None = None) -> list[Client]:
    return [stack.enter_context(Client(gate.port, receive_bytes)) for _ in range(count)]


def _closed(client: Client) -> bool:
    """Whether the gate has ended the connection."""
    client.sock.setblocking(False)
    try:
        while client.sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _connections(gate: Gate) -> int:
    return int(control(gate, "status")["connections"])


def test_clients_that_say_nothing_are_let_go(gate: Gate) -> None:
    with ExitStack() as stack:
        crowd = _crowd(stack, gate, THOUSAND)
        _assert_honest_is_served(gate)
        until(lambda: all(_closed(client) for client in crowd), "the silent are kept")
    until(lambda: _connections(gate) == 0, "connections are left")


def test_clients_that_send_a_byte_now_and_then_are_let_go(gate: Gate) -> None:
    """Each byte is no reason for more time: the deadline is the head's, whole."""
    head = request("clean")
    with ExitStack() as stack:
        crowd = _crowd(stack, gate, THOUSAND)
        began = time.monotonic()
        for at in range(len(head)):
            for client in crowd:
                with suppress(OSError):
                    client.sock.send(head[at : at + 1])
            _assert_honest_is_served(gate)
            if time.monotonic() - began > 2:  # as long as a head may take
                break
        until(lambda: all(_closed(client) for client in crowd), "the slow are kept")
    until(lambda: _connections(gate) == 0, "connections are left")


def test_clients_that_leave_a_held_wait_unread_cost_nobody_else(gate: Gate, server: Upstream) -> None:
    before = len(world.items(gate))
    with ExitStack() as stack:
        crowd = _crowd(stack, gate, THOUSAND if FULL else 200)
        for number, client in enumerate(crowd):
            client.send(request("hostile", key=f"unread-{number}"))
        _assert_honest_is_served(gate)
        until(lambda: len(control(gate, "escrow.ls", limit=100_000)) == before + len(crowd), "not all are held", 60)
    until(lambda: _connections(gate) == 0, "connections are left")
    _assert_honest_is_served(gate)
    assert all(server.runs(f"unread-{number}") == 1 for number in range(0, len(crowd), 50))


def test_clients_that_stop_reading_a_stream_cost_bounded_memory(gate: Gate) -> None:
    before = _resident_bytes(gate)
    with ExitStack() as stack:
        for client in _crowd(stack, gate, STREAMS, receive_bytes=4096):
            client.send(b"GET /mcp HTTP/1.1\r\nHost: gate\r\nAccept: text/event-stream\r\n\r\n")
        until(lambda: _is_served(gate), "nobody is served any more", 120)  # streams that never wait are judged in the loop until their buffers are full
        _assert_honest_is_served(gate)
        assert _resident_bytes(gate) - before < MAX_GROWTH_BYTES
    until(lambda: _connections(gate) == 0, "connections are left")


def test_clients_that_stop_reading_a_big_result_cost_bounded_memory(gate: Gate) -> None:
    before, released = _resident_bytes(gate), _released(gate)
    with ExitStack() as stack:
        for at in range(0, THOUSAND if FULL else 25, 25):
            for client in _crowd(stack, gate, 25, receive_bytes=4096):
                client.send(request("clean", size=512 << 10))
            until(lambda at=at: _released(gate) >= released + at + 25, "not all were released", 60)  # type: ignore[misc]
        _assert_honest_is_served(gate)
        assert _resident_bytes(gate) - before < MAX_GROWTH_BYTES + (THOUSAND << 19 if FULL else 0)
    until(lambda: _connections(gate) == 0, "connections are left")
    _assert_honest_is_served(gate)


def _released(gate: Gate) -> int:
    return int(control(gate, "status")["counters"]["released"])
