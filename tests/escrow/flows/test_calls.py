"""Plaintext of TLS objects: neighbours swapped, calls lost, retried, cut off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from escrow.events import Connection, Endpoint, Event, Linked, Lost, TlsClosed, TlsDirection, TlsEnd, TlsOpened, TlsSlice, Unlinked
from escrow.flows import hole
from escrow.flows.bounds import Bounds
from escrow.flows.calls import CallStream
from escrow.flows.flows import Flows
from escrow.flows.hole import END, Chunk, Hole
from escrow.flows.unit import UnitKind
from tests.escrow.flows.traffic import DOWN, UP, answer, post, tls_calls, tls_object, told

READ, WRITE = TlsDirection.READ, TlsDirection.WRITE
OBJECT = tls_object()
CALLS = [b"a" * size for size in (1, 4095, 4096, 4097, 8192, 16383, 16384, 16385, 1 << 20)]
WHOLE = b"".join(CALLS)


def read(slices: list[TlsSlice], *, from_start: bool = True) -> list[Chunk]:
    stream = CallStream(Bounds(), from_start=from_start)
    for slice in slices:
        stream.feed(slice)
    stream.close()
    out: list[Chunk] = []
    for chunk in stream.out:
        if isinstance(chunk, bytes) and out and isinstance(out[-1], bytes):
            out[-1] += chunk
        else:
            out.append(chunk)
    return out


def test_calls_of_every_size_in_order_and_with_neighbours_swapped() -> None:
    slices = list(tls_calls(OBJECT, WRITE, CALLS))
    assert read(slices) == [WHOLE, END]
    swapped = list(slices)
    for at in range(0, len(swapped) - 1, 2):
        swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
    assert read(swapped) == [WHOLE, END]


@pytest.mark.parametrize("lost", range(8))
def test_a_lost_call_is_a_hole_of_unknown_size(lost: int) -> None:
    out = read(list(tls_calls(OBJECT, WRITE, CALLS[:lost])) + list(tls_calls(OBJECT, WRITE, CALLS[lost + 1 :], lost + 1)))
    assert [chunk for chunk in out if isinstance(chunk, Hole)] == [Hole(None, hole.LOST)]


def test_a_lost_slice_of_a_call_is_a_hole_of_its_size() -> None:
    slices = list(tls_calls(OBJECT, WRITE, [b"x" * 40000, b"y"]))
    assert read([slices[0], *slices[2:]]) == [b"x" * 16384, Hole(16384, hole.LOST), b"x" * (40000 - 32768) + b"y", END]
    assert read(slices[:2]) == [b"x" * 32768, Hole(None, hole.CUT), END]


def test_an_object_older_than_the_probes_is_joined_in_its_middle() -> None:
    assert read(list(tls_calls(OBJECT, READ, [b"x"], 7)), from_start=False) == [Hole(None, hole.JOINED), b"x", END]


def test_calls_that_may_not_have_been_carried_out_are_a_doubt() -> None:
    slices = [replace(slice, confirmed=False) for slice in tls_calls(OBJECT, WRITE, [b"x", b"y"])]
    assert read(slices) == [Hole(0, hole.UNCONFIRMED), b"xy", END]


def exchange(serves: bool) -> list[Event]:
    asks, says = (READ, WRITE) if serves else (WRITE, READ)
    return [
        TlsOpened(OBJECT, 0, True),
        *tls_calls(OBJECT, asks, [post(b"ask")]),
        *tls_calls(OBJECT, says, [answer(b"said")]),
        TlsClosed(OBJECT, 1, TlsEnd.SHUTDOWN),
        TlsClosed(OBJECT, 2, TlsEnd.FREED),
    ]


@pytest.mark.parametrize("serves", [False, True])
def test_which_end_it_is_shows_by_its_words_and_its_connection_by_the_link(serves: bool) -> None:
    link = Connection(Endpoint("10.0.0.1", 5), Endpoint("10.0.0.2", 443))
    events = exchange(serves)
    flows = Flows()
    found = flows.feed(events)
    assert told(found) == [(UP, UnitKind.BODY, b"ask", ""), (DOWN, UnitKind.BODY, b"said", "")]
    assert {unit.connection for unit in found} == {None} and {unit.process for unit in found} == {OBJECT.process}
    linked = Flows().feed([events[0], Linked(OBJECT, link, serves, 0, "test"), *events[1:]])
    assert {unit.connection for unit in linked} == {link}
    broken = Flows().feed([events[0], Linked(OBJECT, link, serves, 0, "test"), Unlinked(OBJECT, 0, "test"), *events[1:]])
    assert {unit.connection for unit in broken} == {None}


def test_records_lost_before_an_object_ends_make_its_tail_doubtful() -> None:
    flows = Flows()
    events = exchange(True)
    found = flows.feed([*events[:3], Lost("tls", 1, "ring full", 1, 9), TlsClosed(OBJECT, 2, TlsEnd.FREED)])
    assert [(raw, why) for _, _, raw, why in told(found)] == [(b"ask", ""), (b"said", ""), (b"", hole.CUT), (b"", hole.CUT)]


def test_what_is_no_http_inside_tls_is_broken_and_bounded() -> None:
    flows = Flows()
    flows.feed([TlsOpened(OBJECT, 0, True), *tls_calls(OBJECT, READ, [b"\0" * 16384] * 40)])
    found = flows.feed([TlsClosed(OBJECT, 2, TlsEnd.FREED)])
    assert {unit.kind for unit in found} <= {UnitKind.FIRST, UnitKind.BROKEN} and any(unit.why for unit in found)
