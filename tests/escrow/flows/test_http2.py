"""HTTP/2 overheard: what a real client and a real server (h2) say to each other, whole, split, and with holes."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import pytest
from hpack import Encoder

from escrow.events import Direction, TcpSlice, TlsClosed, TlsDirection, TlsEnd, TlsOpened
from escrow.flows import hole
from escrow.flows.bounds import Bounds
from escrow.flows.flows import Flows
from escrow.flows.http2 import PREFACE
from escrow.flows.unit import Unit, UnitKind
from tests.escrow.flows.traffic import DOWN, UP, Talk, connection, slice_of, tls_calls, tls_object, told, units

BODIES = [b'{"n":%d}' % number + b"z" * number * 9000 for number in range(4)]


def spoken() -> list[tuple[Direction, bytes]]:
    """Four interleaved exchanges; the last answer is a stream of events."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    said: list[tuple[Direction, bytes]] = []

    def flush() -> None:
        for _ in range(3):
            if data := client.data_to_send():
                said.append((UP, data))
                server.receive_data(data)
            if data := server.data_to_send():
                said.append((DOWN, data))
                client.receive_data(data)

    client.initiate_connection()
    server.initiate_connection()
    flush()
    for number, body in enumerate(BODIES):
        head = [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", f"/{number}"), ("content-type", "application/json")]
        client.send_headers(2 * number + 1, head)
        for at in range(0, len(body), 16000):
            client.send_data(2 * number + 1, body[at : at + 16000])
        client.end_stream(2 * number + 1)
    flush()
    for number in (1, 0, 2):
        server.send_headers(2 * number + 1, [(":status", "200"), ("content-type", "application/json")])
        server.send_data(2 * number + 1, b"answer %d" % number, end_stream=True)
    server.send_headers(7, [(":status", "200"), ("content-type", "text/event-stream")])
    server.send_data(7, b"data: one\n\nda")
    server.send_data(7, b"ta: two\n\n")
    server.send_headers(7, [("trailer", "x")], end_stream=True)
    flush()
    return said


SPOKEN = spoken()
WANT = {
    *((UP, UnitKind.BODY, body, "") for body in BODIES),
    *((DOWN, UnitKind.BODY, b"answer %d" % number, "") for number in range(3)),
    (DOWN, UnitKind.EVENT, b"one", ""),
    (DOWN, UnitKind.EVENT, b"two", ""),
}


def talk(size: int = 1 << 14) -> list[TcpSlice]:
    one = Talk(size=size)
    for direction, data in SPOKEN:
        one.say(direction, data)
    return one.close().events


@pytest.mark.parametrize("size", [1, 5, 9, 100, 1 << 14])
def test_interleaved_exchanges(size: int) -> None:
    found = units(talk(size))
    assert set(told(found)) == WANT
    assert {unit.asked.target for unit in found if unit.asked is not None} == {"/0", "/1", "/2", "/3"}


@pytest.mark.parametrize("server_first", [False, True])
@pytest.mark.parametrize("serves", [False, True])
def test_in_a_tls_object_of_either_end(serves: bool, server_first: bool) -> None:
    object, flows = tls_object(), Flows()
    found: list[Unit] = flows.feed([TlsOpened(object, 0, True)])
    numbers = {UP: 0, DOWN: 0}
    order = sorted(SPOKEN[:2], key=lambda each: (each[0] is UP) == server_first) + SPOKEN[2:]
    for direction, data in order:
        end = TlsDirection.READ if (direction is UP) == serves else TlsDirection.WRITE
        found += flows.feed(tls_calls(object, end, [data], numbers[direction]))
        numbers[direction] += 1
    found += flows.feed([TlsClosed(object, 9, TlsEnd.FREED)])
    assert set(told(found)) == WANT


def test_a_hole_in_data_costs_one_message_and_one_in_a_head_the_direction() -> None:
    up = b"".join(data for direction, data in SPOKEN if direction is UP)
    inside = up.index(BODIES[1]) + 50
    link = connection()
    base = Talk(link).events

    def run(at: int) -> list[tuple[bytes, str]]:
        events = [*base, *(slice_of(link, UP, start, up[start : min(start + 8000, at)]) for start in range(0, at, 8000))]
        events += [slice_of(link, UP, start, up[start : start + 8000]) for start in range(at + 4, len(up), 8000)]
        return [(raw[:7], why) for _, _, raw, why in told(units(events))]

    assert run(inside) == [(b'{"n":0}', ""), (b'{"n":1}', hole.LOST), (b'{"n":2}', ""), (b'{"n":3}', "")]
    head = up.index(BODIES[0]) - 12
    assert [each for each in run(head) if not each[1]] == []


def test_a_flood_of_continuations_and_a_bomb_of_fields_are_bounded() -> None:
    small = Bounds(head_bytes=4096)
    frame = b"\x00\x00\x64\x01\x00\x00\x00\x00\x01" + bytes(100)
    more = b"\x00\x00\x64\x09\x00\x00\x00\x00\x01" + bytes(100)
    found = units(Talk().say(UP, PREFACE + frame + more * 1000).events, Flows(small))
    assert [why for _, kind, _, why in told(found) if kind is UnitKind.BROKEN] == ["it is malformed HTTP/2"]
    encoder = Encoder()
    block = encoder.encode([(b"x", b"y" * 4000)]) + encoder.encode([(b"x", b"y" * 4000)]) * 1000
    bomb = len(block).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + block
    found = units(Talk().say(UP, PREFACE + bomb).events, Flows(small))
    assert [why for _, kind, _, why in told(found) if kind is UnitKind.BROKEN] == ["it is malformed HTTP/2"]
