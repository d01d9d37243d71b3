"""TCP streams: any order, any doubles, any split give the bytes that were sent, or a hole where they were not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.events import TcpFlags, TcpGap, TcpSlice
from escrow.flows import hole
from escrow.flows.bounds import Bounds
from escrow.flows.hole import END, Chunk, Hole
from escrow.flows.stream import TcpStream
from tests.escrow.flows.traffic import UP, connection, slice_of

LINK = connection()
DATA = bytes(random.Random(1).randbytes(600))  # longer than what is left to 2**32: the numbers wrap around
SYN = slice_of(LINK, UP, 0, flags=TcpFlags.SYN)
FIN = slice_of(LINK, UP, len(DATA), flags=TcpFlags.FIN)


def read(events: Sequence[TcpSlice | TcpGap], bounds: Bounds | None = None, *, close: bool = True, tick: int = 0) -> list[Chunk]:
    """What comes out, with neighbouring bytes put together."""
    stream = TcpStream(bounds or Bounds())
    for event in events:
        if isinstance(event, TcpGap):
            stream.gap(event)
        else:
            stream.feed(event)
    if tick:
        stream.tick(tick)
    if close:
        stream.close()
    out: list[Chunk] = []
    for chunk in stream.out:
        if isinstance(chunk, bytes) and out and isinstance(out[-1], bytes):
            out[-1] += chunk
        else:
            out.append(chunk)
    return out


def part(start: int, end: int, **changed: object) -> TcpSlice:
    return replace(slice_of(LINK, UP, start, DATA[start:end]), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", range(1, len(DATA)))
def test_split_anywhere_in_either_order(at: int) -> None:
    assert read([SYN, part(0, at), part(at, 600), FIN]) == [DATA, END]
    assert read([SYN, part(at, 600), FIN, part(0, at)]) == [DATA, END]
    assert read([SYN, part(0, at), part(0, 600), FIN]) == [DATA, END]
    assert read([SYN, part(at, 600), part(0, 600), FIN]) == [DATA, END]


@st.composite
def pieces(draw: st.DrawFn) -> list[TcpSlice]:
    """Slices that cover the data at least once, overlapping, doubled, in any order."""
    cuts = sorted(draw(st.sets(st.integers(1, 599), max_size=8)))
    found = [part(low, high) for low, high in zip([0, *cuts], [*cuts, 600], strict=True)]
    for start, size in draw(st.lists(st.tuples(st.integers(0, 599), st.integers(1, 200)), max_size=6)):
        found.append(part(start, min(start + size, 600)))
    return draw(st.permutations([*found, *draw(st.lists(st.sampled_from(found), max_size=4)), FIN]))


@given(pieces())
def test_any_order_with_overlaps_and_doubles_gives_the_bytes_sent(found: list[TcpSlice]) -> None:
    assert read([SYN, *found]) == [DATA, END]


@given(pieces(), st.integers(0, 20))
def test_a_lost_slice_is_a_hole_or_was_sent_twice(found: list[TcpSlice], which: int) -> None:
    left = [each for number, each in enumerate(found) if number != which % len(found)]
    position, out = 0, read([SYN, *left])
    for chunk in out:
        if isinstance(chunk, bytes):
            assert chunk == DATA[position : position + len(chunk)]
            position += len(chunk)
        elif isinstance(chunk, Hole):
            position += chunk.size or 0
    assert position == 600 or len(left) != len(found)
    if not any(isinstance(chunk, Hole) for chunk in out) and FIN in left:
        assert out == [DATA, END]


@given(pieces(), st.integers(0, 20), st.integers(0, 599))
def test_a_second_copy_that_differs_is_never_passed_over(found: list[TcpSlice], which: int, bit: int) -> None:
    """The first copy wins whichever it is, and the doubt is told."""
    honest = [each for each in found if each.data]
    victim = honest[which % len(honest)]
    at = bit % len(victim.data)
    forged = replace(victim, data=victim.data[:at] + bytes([victim.data[at] ^ 1 or 2]) + victim.data[at + 1 :])
    assert any(isinstance(chunk, Hole) for chunk in read([SYN, *found, forged]))
    assert any(isinstance(chunk, Hole) for chunk in read([SYN, forged, *found]))


def test_a_hole_is_waited_for_and_then_given_up() -> None:
    late = [SYN, part(0, 100), replace(part(200, 600), time_ns=5)]
    assert read(late, close=False, tick=1_000_000_000) == [DATA[:100]]
    assert read(late, close=False, tick=4_000_000_000) == [DATA[:100], Hole(100, hole.LOST), DATA[200:]]


def test_bytes_that_come_for_a_hole_given_up_are_not_taken() -> None:
    stream = TcpStream(Bounds())
    for event in (SYN, part(0, 100), replace(part(200, 300), time_ns=5)):
        stream.feed(event)
    stream.tick(4_000_000_000)
    stream.feed(part(100, 200))
    stream.feed(part(300, 400))
    assert stream.out == [DATA[:100], Hole(100, hole.LOST), DATA[200:300], Hole(0, hole.UNCOMPARED), DATA[300:400]]


def test_what_was_not_captured_is_a_hole_at_once() -> None:
    assert read([SYN, part(0, 100, missing=50), part(150, 600), FIN]) == [DATA[:100], Hole(50, hole.NOT_CAPTURED), DATA[150:], END]


def test_bytes_behind_a_hole_are_bounded() -> None:
    found = [SYN, *(part(start, start + 10) for start in range(100, 600, 10))]
    assert read(found, Bounds(waiting_bytes=200), close=False) == [Hole(100, hole.LOST), DATA[100:]]


def test_a_stream_joined_in_its_middle_says_so_first() -> None:
    assert read([part(100, 600), FIN]) == [Hole(None, hole.JOINED), DATA[100:], END]
    assert read([part(100, 300), part(0, 150), part(300, 600), FIN]) == [Hole(None, hole.JOINED), DATA[100:], END]


def test_a_gap_whose_length_nobody_knows_is_not_waited_for() -> None:
    gap = TcpGap(LINK, UP, 1, part(100, 101).sequence, "fragment")
    assert read([SYN, part(0, 100), gap, part(200, 600), FIN], close=False) == [DATA[:100], Hole(100, hole.LOST), DATA[200:], END]
    assert read([SYN, part(0, 100), gap, part(100, 600), FIN], close=False) == [DATA, END]
    assert read([SYN, part(0, 100), gap]) == [DATA[:100], Hole(None, hole.CUT), END]


def test_records_lost_elsewhere_are_a_doubt_until_the_next_byte() -> None:
    def end(*after: TcpSlice) -> list[Chunk]:
        stream = TcpStream(Bounds())
        stream.feed(SYN)
        stream.feed(part(0, 100))
        stream.lost()
        for event in after:
            stream.feed(event)
        stream.close()
        return stream.out

    assert end() == [DATA[:100], Hole(None, hole.CUT), END]
    assert end(part(100, 200)) == [DATA[:100], DATA[100:200], END]
    assert end(slice_of(LINK, UP, 100, flags=TcpFlags.FIN)) == [DATA[:100], END]


def test_a_retransmission_older_than_the_history_cannot_be_compared() -> None:
    found = [SYN, *(part(start, start + 100) for start in range(0, 600, 100)), part(0, 100)]
    assert read(found, Bounds(history_bytes=200), close=False) == [DATA, Hole(0, hole.UNCOMPARED)]


def test_a_keep_alive_is_no_conflict_and_a_forged_byte_is() -> None:
    def again(byte: bytes) -> list[Chunk]:
        return read([SYN, part(0, 600), replace(part(599, 600), data=byte)], close=False)

    assert again(b"\0") == [DATA]
    assert again(bytes([DATA[599] ^ 1 or 2])) == [DATA, Hole(0, hole.CONFLICT)]


def test_a_reset_ends_the_stream_only_where_the_receiver_is() -> None:
    def reset(at: int) -> TcpSlice:
        return slice_of(LINK, UP, at, flags=TcpFlags.RST)

    assert read([SYN, part(0, 100), reset(50), part(100, 600), FIN]) == [DATA, END]
    assert read([SYN, part(0, 100), reset(100)], close=False) == [DATA[:100], END]
    assert read([SYN, reset(100), part(0, 100)], close=False) == [DATA[:100], END]


def test_bytes_after_the_end_are_told() -> None:
    early = slice_of(LINK, UP, 100, flags=TcpFlags.FIN)
    assert read([SYN, part(0, 100), early, part(100, 200)], close=False) == [DATA[:100], END, Hole(0, hole.AFTER_END)]


def test_a_leap_of_the_sequence_numbers_is_told() -> None:
    far = replace(part(0, 100), sequence=(SYN.sequence + (1 << 31) - 5) & 0xFFFFFFFF)
    assert read([SYN, part(0, 100), far], close=False) == [DATA[:100], Hole(None, hole.FAR), DATA[:100]]


def test_a_packet_seen_on_two_interfaces_is_read_once() -> None:
    found = [SYN, replace(SYN, interface=2)]
    for start in range(0, 600, 50):
        found += [part(start, start + 50), part(start, start + 50, interface=2)]
    assert read([*found, FIN, FIN]) == [DATA, END]
