"""The gate's notes as bytes: what is written is read, a reader that comes later learns what is open, and nothing is left out unknown."""

from __future__ import annotations

import pytest

from enforcer.witness.notes import MOST_WAITING, PACKET_BYTES, NoteReader, NoteWriter
from escrow.events import Connection, Direction, Endpoint
from escrow.flows.notes import Accepted, Closed, Dialed, Note, Released

ONE = Connection(Endpoint("127.0.0.1", 50000), Endpoint("127.0.0.1", 80))
OTHER = Connection(Endpoint("fd00::1", 50001), Endpoint("fd00::2", 80))
SUM = bytes(range(32))


def read(writer: NoteWriter) -> list[Note | int]:
    reader = NoteReader()
    return [each for packet in writer.packets for each in reader.read(bytes(packet))]


def test_what_was_noted_is_read_in_its_order_up_to_its_time() -> None:
    writer = NoteWriter()
    noted: list[Note] = [
        Accepted(ONE, True),
        Dialed(OTHER),
        Released(SUM, ONE, Direction.TO_CLIENT),
        Released(SUM[::-1], OTHER, Direction.TO_SERVER),
        Closed(ONE),
        Closed(OTHER),
    ]
    for note in noted:
        writer.note(note)
    writer.until(123)
    assert read(writer) == [*noted, 123]


def test_ports_that_are_used_again_are_another_connection() -> None:
    writer = NoteWriter()
    for note in (Accepted(ONE), Accepted(ONE, True), Released(SUM, ONE, Direction.TO_CLIENT)):
        writer.note(note)
    writer.until(1)
    assert read(writer) == [Accepted(ONE), Closed(ONE), Accepted(ONE, True), Released(SUM, ONE, Direction.TO_CLIENT), 1]


def test_notes_from_before_the_first_reader_are_kept_for_it() -> None:
    writer = NoteWriter()
    writer.note(Accepted(ONE))
    writer.note(Released(SUM, ONE, Direction.TO_CLIENT))
    writer.begin()
    writer.until(1)
    assert read(writer) == [Accepted(ONE), Released(SUM, ONE, Direction.TO_CLIENT), 1]


def test_a_later_reader_learns_what_is_open_and_that_it_was_before() -> None:
    writer = NoteWriter()
    for note in (Accepted(ONE), Dialed(OTHER, True), Released(SUM, ONE, Direction.TO_CLIENT)):
        writer.note(note)
    writer.stop()
    writer.note(Released(SUM, ONE, Direction.TO_CLIENT))
    writer.note(Closed(ONE))
    writer.begin()
    writer.note(Released(SUM, OTHER, Direction.TO_SERVER))
    writer.until(7)
    assert read(writer) == [Dialed(OTHER, True, before=True), Released(SUM, OTHER, Direction.TO_SERVER), 7]


def test_more_than_is_kept_is_known_and_begun_anew() -> None:
    writer = NoteWriter()
    writer.note(Accepted(ONE))
    released = Released(SUM, ONE, Direction.TO_CLIENT)
    for _ in range(MOST_WAITING * PACKET_BYTES // 38 + PACKET_BYTES):
        writer.note(released)
    assert writer.behind and len(writer.packets) == MOST_WAITING, "bounded, and it says so"
    assert max(map(len, writer.packets)) < PACKET_BYTES + 64
    writer.begin()
    writer.until(1)
    assert not writer.behind and read(writer) == [Accepted(ONE, before=True), 1]


@pytest.mark.parametrize("packet", [b"?", b"R", b"R" + bytes(37), b"C\1\0\0\0", b"U\0", b"A\1\0\0\0\0\3\0abc", b"D\1\0\0\0\0\4\0\xff\xff\xff\xff"])
def test_bytes_that_are_no_notes_are_an_error(packet: bytes) -> None:
    with pytest.raises(ValueError):
        list(NoteReader().read(packet))
