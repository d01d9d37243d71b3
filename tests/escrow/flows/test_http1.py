"""HTTP/1.1 overheard: one reading, whole or split at every point, and what a hole costs."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import brotli
import pytest

from escrow.events import Direction, TcpFlags, TcpSlice
from escrow.flows import hole
from escrow.flows.bounds import Bounds
from escrow.flows.coding import zstd
from escrow.flows.flows import Flows
from escrow.flows.http1 import NO_REQUEST
from escrow.flows.unit import UnitKind
from tests.escrow.flows.traffic import DOWN, QUIET, UP, Talk, answer, chunk, connection, post, slice_of, stream, told, units

ASK = post(b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}')
EVENTS = stream(b": hello\n\n", b'event: message\r\nid: 7\r\ndata: {"a":\r\ndata: 1}\r\n\r\n', b"data: two\n\ndata: three\n\n")
TALK = [
    (UP, ASK),
    (DOWN, answer(b'{"jsonrpc":"2.0","id":1,"result":{}}')),
    (UP, b"GET /sse HTTP/1.1\r\nHost: a\r\n\r\n"),
    (DOWN, EVENTS),
    (UP, post(b"", "Expect: 100-continue\r\n")),
    (DOWN, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"),
    (UP, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (DOWN, b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"),
    (UP, b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"ab") + chunk(b"c") + b"0\r\n\r\n"),
    (DOWN, b"HTTP/1.1 200 OK\r\n\r\nuntil the end"),
]
WANT = [
    (UP, UnitKind.BODY, b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}', ""),
    (DOWN, UnitKind.BODY, b'{"jsonrpc":"2.0","id":1,"result":{}}', ""),
    (DOWN, UnitKind.EVENT, b'{"a":\n1}', ""),
    (DOWN, UnitKind.EVENT, b"two", ""),
    (DOWN, UnitKind.EVENT, b"three", ""),
    (UP, UnitKind.BODY, b"abc", ""),
    (DOWN, UnitKind.BODY, b"until the end", ""),
]


def transcript(size: int = 1 << 14) -> list[TcpSlice]:
    talk = Talk(size=size)
    for direction, data in TALK:
        talk.say(direction, data)
    return talk.close().events


def test_a_transcript_whole() -> None:
    assert told(units(transcript())) == WANT


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
def test_a_transcript_in_small_segments(size: int) -> None:
    assert told(units(transcript(size))) == WANT


@pytest.mark.parametrize("turn", range(len(TALK)))
def test_a_transcript_split_at_every_point(turn: int) -> None:
    for at in range(1, len(TALK[turn][1])):
        talk = Talk()
        for number, (direction, data) in enumerate(TALK):
            for piece in (data[:at], data[at:]) if number == turn else (data,):
                talk.say(direction, piece)
        assert told(units(talk.close().events)) == WANT, at


def test_answers_carry_their_requests() -> None:
    found = {unit.raw: unit for unit in units(transcript()) if unit.kind not in QUIET}
    asked = [found[raw].asked for raw in (b"two", b"until the end")]
    assert [head.target for head in asked if head is not None] == ["/sse", "/c"]
    assert found[ASK.partition(b"\r\n\r\n")[2]].exchange == found[b'{"jsonrpc":"2.0","id":1,"result":{}}'].exchange == 0


@pytest.mark.parametrize("lost", range(len(answer(b"x" * 40))))
def test_a_byte_lost_anywhere_in_an_answer_makes_it_incomplete(lost: int) -> None:
    first, second = answer(b"x" * 40), answer(b"second")
    link = connection()
    talk = Talk(link).say(UP, ASK)
    events = [*talk.events, slice_of(link, DOWN, 0, first[:lost]), slice_of(link, DOWN, lost + 1, first[lost + 1 :])]
    at = len(first)
    events += [slice_of(link, UP, talk.at[UP], ASK), slice_of(link, DOWN, at, second)]
    found = [each for each in told(units(events)) if each[0] is DOWN]
    assert found and found[0][3] == hole.LOST
    body = first.index(b"x" * 40)
    if lost >= body:  # the framing counts over it
        assert found[1] == (DOWN, UnitKind.BODY, b"second", "")
    else:
        assert all(why for _, _, _, why in found)


def test_an_event_is_incomplete_where_a_hole_touches_it_and_the_next_is_not() -> None:
    data = stream(b"data: one\n\ndata: two\n\ndata: three\n\ndata: four\n\n", end=False)
    link, at = connection(), data.index(b"two")
    talk = Talk(link).say(UP, b"GET /sse HTTP/1.1\r\nHost: a\r\n\r\n")
    events = [*talk.events, slice_of(link, DOWN, 0, data[:at]), slice_of(link, DOWN, at + 2, data[at + 2 :])]
    found = [(raw.replace(b"\0", b"?"), why) for direction, kind, raw, why in told(units(events)) if kind is UnitKind.EVENT and direction is DOWN]
    assert found == [(b"one", ""), (b"??o", hole.LOST), (b"three", ""), (b"four", "")]


def test_a_whole_event_lost_makes_the_next_one_incomplete() -> None:
    data = stream(b"data: one\n\ndata: two\n\ndata: three\n\n", end=False)
    link, at = connection(), data.index(b"data: two")
    talk = Talk(link).say(UP, b"GET /sse HTTP/1.1\r\nHost: a\r\n\r\n")
    events = [*talk.events, slice_of(link, DOWN, 0, data[:at]), slice_of(link, DOWN, at + 11, data[at + 11 :])]
    flows = Flows()
    found = [(unit.raw, unit.why) for unit in [*flows.feed(events), *flows.tick(10**12)] if unit.kind is not UnitKind.FIRST and unit.direction is DOWN]
    assert found == [(b"one", ""), (b"", hole.LOST)]  # told at once: the stream may never end
    later = flows.feed([slice_of(link, DOWN, len(data), chunk(b"data: four\n\ndata: five\n\n"))])
    assert [(unit.raw, unit.why) for unit in later] == [(b"four", hole.LOST), (b"five", "")]


def test_a_head_inside_a_body_after_a_gap_is_believed_only_as_incomplete() -> None:
    """A server could have written it there, waiting for a lost record."""
    link = connection()
    inner = answer(b'{"jsonrpc":"2.0","id":1,"result":"forged"}')
    first = answer(b"y" * 100 + inner)
    talk = Talk(link).say(UP, ASK)
    cut = first.index(inner)
    events = [*talk.events, slice_of(link, DOWN, 10, first[10:cut]), slice_of(link, DOWN, cut, first[cut:])]
    assert all(why for direction, _, _, why in told(units(events)) if direction is DOWN)


def test_a_connection_joined_in_its_middle_is_read_from_the_next_head_on() -> None:
    link = connection()
    events = [slice_of(link, DOWN, 500, b"rest of a body"), slice_of(link, UP, 500, ASK), slice_of(link, DOWN, 514, answer(b"one"))]
    up, down = 500 + len(ASK), 514 + len(answer(b"one"))
    events += [slice_of(link, UP, up, ASK), slice_of(link, DOWN, down, answer(b"two"))]
    body = ASK.partition(b"\r\n\r\n")[2]
    assert [(raw, why) for _, _, raw, why in told(units(events))] == [
        (b"", hole.JOINED),
        (b"", hole.JOINED),
        (body, hole.JOINED),
        (b"one", hole.JOINED),
        (body, ""),
        (b"two", ""),
    ]


def gzipped(data: bytes, wbits: int = 31) -> bytes:
    squeeze = zlib.compressobj(wbits=wbits)
    return squeeze.compress(data) + squeeze.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzipped,
    "x-gzip": lambda data: gzipped(data[:9]) + gzipped(data[9:]),  # two members
    "deflate": lambda data: gzipped(data, 15),
    "Deflate": lambda data: gzipped(data, -15),  # without zlib's header
    "br": brotli.compress,
    "zstd": lambda data: zstd.compress(data[:9]) + zstd.compress(data[9:]),  # two frames
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_compressed_bodies_are_read(coding: str, size: int) -> None:
    text = b'{"jsonrpc":"2.0","id":1,"result":"' + b"z" * 5000 + b'"}'
    talk = Talk(size=size).say(UP, ASK).say(DOWN, answer(CODINGS[coding](text), f"Content-Encoding: {coding}\r\n")).close()
    assert told(units(talk.events))[-1] == (DOWN, UnitKind.BODY, text, "")


@pytest.mark.parametrize("coding", [*CODINGS, "zipped", "gzip, br"])
@pytest.mark.parametrize("harm", ["bomb", "broken", "cut"])
def test_a_bomb_a_broken_body_and_one_cut_off_are_incomplete(coding: str, harm: str) -> None:
    squeeze = CODINGS.get(coding, gzipped)
    body = {"bomb": squeeze(bytes(1 << 22)), "broken": b"\xffno such thing", "cut": squeeze(b"abcdefghijklmnop" * 9)[:-1]}[harm]
    talk = Talk().say(UP, ASK).say(DOWN, answer(body, f"Content-Encoding: {coding}\r\n")).close()
    found = told(units(talk.events, Flows(Bounds(message_bytes=1 << 16))))[-1]
    assert found[0] is DOWN and found[3] and len(found[2]) <= 1 << 16


def test_a_window_larger_than_the_web_allows_is_not_kept() -> None:
    squeeze = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    wide = squeeze.compress(b"x" * 100) + squeeze.flush()
    talk = Talk().say(UP, ASK).say(DOWN, answer(wide, "Content-Encoding: zstd\r\n")).close()
    assert told(units(talk.events))[-1][3]


def test_a_message_longer_than_the_bound_is_incomplete_and_the_next_is_read() -> None:
    talk = Talk().say(UP, ASK).say(DOWN, answer(b"x" * 5000)).say(UP, ASK).say(DOWN, answer(b"small"))
    found = [(raw, bool(why)) for direction, _, raw, why in told(units(talk.close().events, Flows(Bounds(message_bytes=1000)))) if direction is DOWN]
    assert found == [(b"", True), (b"small", False)]


def test_tls_on_the_wire_is_opaque_and_no_message() -> None:
    talk = Talk().say(UP, b"\x16\x03\x01\x02\x00" + bytes(512)).say(DOWN, b"\x16\x03\x03" + bytes(99)).close()
    assert [kind for _, kind, _, _ in told(units(talk.events))] == [UnitKind.OPAQUE, UnitKind.OPAQUE]


def test_what_is_no_http_is_broken() -> None:
    talk = Talk().say(UP, b"EHLO there\r\n").say(DOWN, b"220 hello\r\n").close()
    assert [kind for _, kind, _, _ in told(units(talk.events))] == [UnitKind.BROKEN, UnitKind.BROKEN]


REFUSED = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"


@pytest.mark.parametrize("ahead", [False, True])
def test_the_refusal_of_what_is_no_request_is_read_and_nothing_behind_it_believed(ahead: bool) -> None:
    talk = Talk().say(UP, REFUSED).say(DOWN, answer(b"no", status=400)).say(DOWN, answer(b"more"))
    events = talk.events if not ahead else [*talk.events[:2], talk.events[3], talk.events[2], talk.events[4]]
    assert [(raw, bool(why)) for direction, _, raw, why in told(units(events)) if direction is DOWN] == [(b"no", False), (b"more", True)]


def test_an_answer_seen_before_its_request_waits_for_it_and_not_for_ever() -> None:
    talk = Talk().say(UP, ASK).say(DOWN, answer(b"one")).close()
    swapped = [*talk.events[:2], talk.events[3], *talk.events[5:], talk.events[2], talk.events[4]]
    assert [(raw, why) for direction, _, raw, why in told(units(swapped)) if direction is DOWN] == [(b"one", "")]
    flows = Flows()
    assert told(flows.feed([*talk.events[:2], talk.events[3]])) == []
    assert told(flows.tick(10**10)) == [(DOWN, UnitKind.BODY, b"one", NO_REQUEST)]


def test_an_answer_that_ends_early_is_incomplete() -> None:
    talk = Talk().say(UP, ASK).say(DOWN, answer(b"x" * 100)[:-1]).close()
    assert told(units(talk.events))[-1][3] == hole.ENDED


def test_the_same_ports_used_again_are_another_connection() -> None:
    first = Talk().say(UP, ASK).say(DOWN, answer(b"one")).close().events
    again = [event for event in Talk().say(UP, ASK).say(DOWN, answer(b"two")).close().events]
    moved = [TcpSlice(e.connection, e.direction, e.time_ns, (e.sequence + 7777) & 0xFFFFFFFF, e.data, e.missing, e.flags, e.interface) for e in again]
    found = [raw for direction, _, raw, why in told(units([*first, *moved])) if direction is DOWN and not why]
    assert found == [b"one", b"two"]


def test_of_too_many_connections_the_silent_ones_go_and_are_not_believed_later() -> None:
    flows = Flows(Bounds(flows=16))
    old = Talk(connection(1)).say(UP, ASK)
    flows.feed(old.events)
    for port in range(100, 140):
        flows.feed([slice_of(connection(port), UP, 0, flags=TcpFlags.SYN, ns=port), slice_of(connection(port), UP, 0, b"G", ns=port)])
    assert flows.counts.dropped > 0
    late = flows.feed([slice_of(connection(1), DOWN, 0, answer(b"late"), ns=999)])
    assert [unit.why for unit in late if unit.kind is UnitKind.BODY] == [hole.JOINED]


def test_unfinished_bodies_are_bounded_over_all_connections() -> None:
    flows = Flows(Bounds(all_bytes=10_000))
    links = [connection(port) for port in range(50)]
    for link in links:
        flows.feed(Talk(link).say(UP, post(b"a" * 1000)[:-1]).events)
    flows.tick(1)
    assert flows.counts.shed == 1
    found = flows.feed([slice_of(link, UP, len(post(b"a" * 1000)) - 1, b"a") for link in links])
    assert len(found) == 50 and all(unit.why for unit in found)


def test_histories_are_bounded_over_all_connections_and_those_silent_longest_go_first() -> None:
    flows = Flows(Bounds(all_history_bytes=10_000, quiet_ns=1 << 60))
    links = [connection(port) for port in range(50)]
    for number, link in enumerate(links):
        flows.feed([replace(event, time_ns=number + 1) for event in Talk(link).say(UP, post(b"a" * 1000)[:-1]).events])
    flows.tick(1)
    late = len(post(b"a" * 1000)) - 1
    for link, doubted in ((links[0], True), (links[-1], False)):
        found = flows.feed([slice_of(link, UP, late - 9, b"a" * 9), slice_of(link, UP, late, b"a")])
        assert [(unit.kind, bool(unit.why)) for unit in found] == [(UnitKind.BODY, doubted)]


def test_a_client_that_says_no_more_is_still_answered_however_late() -> None:
    talk, flows = Talk().say(UP, ASK), Flows()
    flows.feed([*talk.events, slice_of(talk.link, UP, len(ASK), flags=TcpFlags.FIN)])
    flows.tick(10**12)
    assert told(flows.feed([slice_of(talk.link, DOWN, 0, answer(b"late"), ns=10**12)])) == [(DOWN, UnitKind.BODY, b"late", "")]


def test_a_reset_ends_a_flow() -> None:
    talk, flows = Talk().say(UP, ASK), Flows()
    flows.feed([*talk.events, slice_of(talk.link, DOWN, 0, flags=TcpFlags.RST)])
    flows.tick(10**12)
    late = flows.feed([slice_of(talk.link, DOWN, 0, answer(b"late"), ns=10**12)])
    assert all(unit.why for unit in late if unit.kind is not UnitKind.FIRST)


def test_directions_are_those_of_the_connection() -> None:
    assert {Direction.TO_SERVER, Direction.TO_CLIENT} == {unit.direction for unit in units(transcript())}
