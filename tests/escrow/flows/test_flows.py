"""Whatever the taps give, and whoever wrote it: no exception, and what was changed is never complete."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from escrow.events import Event, Linked, Lost, TcpFlags, TcpGap, TcpSlice, TlsClosed, TlsDirection, TlsEnd, TlsOpened, TlsSlice, Unlinked
from escrow.flows.bounds import Bounds
from escrow.flows.flows import Flows
from escrow.flows.http2 import PREFACE
from escrow.flows.notes import Accepted
from escrow.flows.reading import Reading
from escrow.flows.unit import UnitKind
from escrow.flows.witness import Witness
from tests.escrow.flows.test_http2 import SPOKEN
from tests.escrow.flows.traffic import DOWN, UP, Talk, answer, chunk, connection, post, slice_of, stream, tls_object

SMALL = Bounds(flows=6, waiting_bytes=200, history_bytes=100, all_history_bytes=1000, head_bytes=1024, message_bytes=2000, all_bytes=4000, exchanges=3, calls=4)
WORDS = [
    post(b'{"jsonrpc":"2.0","id":1,"method":"m"}'),
    answer(b'{"jsonrpc":"2.0","id":1,"result":1}'),
    stream(b"data: x\n\n", b'data: {"type":"message_start","message":{}}\n\n'),
    chunk(b"event: endpoint\ndata: /x\n\n"),
    answer(b"\x1f\x8b\x08\0", "Content-Encoding: gzip\r\n"),
    answer(b"x", "Content-Encoding: deflate\r\nContent-Type: text/event-stream\r\n"),
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    PREFACE,
    b"\x16\x03",
    *(data for _, data in SPOKEN[:4]),
]
tails = st.tuples(st.sampled_from(WORDS), st.integers(0, 4000)).map(lambda drawn: drawn[0][drawn[1] % (len(drawn[0]) + 1) :])
words = st.one_of(st.sampled_from(WORDS), st.binary(max_size=40), tails)
links = st.integers(1, 8).map(connection)
ways = st.sampled_from([UP, DOWN])
objects = st.integers(1, 4).map(tls_object)
places = st.integers(0, 600) | st.integers(0, 1 << 32)
tcp = st.builds(
    lambda link, way, at, data, flags, missing, ns: slice_of(link, way, at, data, flags=TcpFlags(flags), missing=missing, ns=ns),
    *(links, ways, places, words),
    *(st.sampled_from([0, 0, 0, 0, 1, 2, 3, 4]), st.sampled_from([0, 0, 0, 5, 5000]), st.integers(0, 10**11)),
)
tls = st.builds(
    lambda object, way, number, offset, data, extra, sure: TlsSlice(object, way, 0, 1, number, offset, offset + len(data) + extra, data, extra // 2, sure),
    *(objects, st.sampled_from(TlsDirection), st.integers(0, 5), st.sampled_from([0, 0, 0, 7]), words, st.sampled_from([0, 0, 8]), st.booleans()),
)
others = st.one_of(
    st.builds(TcpGap, links, ways, st.just(0), st.integers(0, 1 << 32), st.just("fragment")),
    st.builds(TlsOpened, objects, st.just(0), st.booleans()),
    st.builds(TlsClosed, objects, st.just(0), st.sampled_from(TlsEnd)),
    st.builds(Linked, objects, links, st.booleans(), st.just(0), st.just("test")),
    st.builds(Unlinked, objects, st.just(0), st.just("test")),
    st.just(Lost("tap", 0, "ring full", 1, 1)),
)


@given(st.lists(st.one_of(tcp, tcp, tls, others), max_size=30), st.lists(st.integers(0, 10**12), max_size=3))
def test_no_events_make_an_exception(events: list[Event], ticks: list[int]) -> None:
    flows, reading, witness = Flows(SMALL), Reading(4), Witness(frozenset({8000}))
    witness.note(Accepted(connection(1)))
    found = []
    for at in range(0, len(events), 5):
        found += flows.feed(events[at : at + 5])
        found += flows.tick(ticks[at // 5]) if at // 5 < len(ticks) else []
    found += flows.close(10**12)
    for unit in found:
        witness.saw(unit)
        reading.read(unit)
    witness.tick(10**12)
    witness.tick(10**13)


@given(st.sampled_from([1, 2, 3, 5]), st.data())
def test_a_transcript_with_one_slice_lost_gives_no_changed_message_as_complete(size_kib: int, data: st.DataObject) -> None:
    """Whatever is complete was sent so."""
    bodies = [b'{"n":%d,"t":"%b"}' % (number, b"t" * number * 700) for number in range(6)]
    talk = Talk(size=size_kib * 97)
    for number, body in enumerate(bodies):
        talk.say(UP, post(body)).say(DOWN, stream(b"data: " + body + b"\n\n") if number % 2 else answer(body))
    lost = data.draw(st.sets(st.integers(2, len(talk.events) - 1), max_size=3))
    cut = data.draw(st.booleans())
    events = [replace(each, data=each.data[:9], missing=len(each.data[9:])) if cut else None for number, each in enumerate(talk.events) if number in lost]
    kept: list[TcpSlice] = [each for number, each in enumerate(talk.events) if number not in lost] + [each for each in events if each is not None]
    flows = Flows()
    found = [*flows.feed(kept), *flows.tick(10**12), *flows.close(10**12)]
    whole = [unit.raw for unit in found if unit.kind in (UnitKind.BODY, UnitKind.EVENT) and unit.complete]
    assert set(whole) <= set(bodies)
    if not lost:
        assert sorted(whole) == sorted(bodies * 2)
