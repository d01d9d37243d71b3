"""Which object speaks on which connection: only by ciphertext that agrees in both directions."""

from __future__ import annotations

import os

from enforcer.taps.evidence import CipherSeen
from enforcer.taps.linking import GRACE_NS, Linker
from escrow.events import (
    Connection,
    Direction,
    Endpoint,
    Linked,
    Process,
    ProcessEnded,
    TcpFlags,
    TcpSlice,
    TlsClosed,
    TlsDirection,
    TlsEnd,
    TlsObject,
    Unlinked,
)

PROCESS = Process(7, 1, 2, 3)
READ, WRITE = TlsDirection.READ, TlsDirection.WRITE


def about(number: int = 1) -> TlsObject:
    return TlsObject(PROCESS, 0x1000 + number, number)


def on(port: int = 5000) -> Connection:
    return Connection(Endpoint("10.0.0.1", port), Endpoint("10.0.0.2", 443))


def wire(data: bytes, direction: Direction, connection: Connection | None = None) -> TcpSlice:
    return TcpSlice(connection or on(), direction, 5, 1, data, 0, TcpFlags.NONE, 1)


def record() -> bytes:
    return b"\x16\x03\x03\x00\x80" + os.urandom(128)


def seen(data: bytes, direction: TlsDirection, which: TlsObject | None = None) -> CipherSeen:
    return CipherSeen(which or about(), direction, 4, data[:64])


def test_two_pieces_link_whichever_side_comes_first() -> None:
    hello, answer = record(), record()
    early, late = Linker(), Linker()
    assert early.saw_wire(wire(hello, Direction.TO_SERVER)) == []
    assert early.saw_wire(wire(answer, Direction.TO_CLIENT)) == []
    assert early.saw_cipher(seen(hello, READ)) == []  # one piece is not enough
    (linked,) = early.saw_cipher(seen(answer, WRITE))
    assert linked == Linked(about(), on(), True, 4, "ciphertext in both directions")

    assert late.saw_cipher(seen(hello, WRITE)) == late.saw_cipher(seen(answer, READ)) == []
    assert late.saw_wire(wire(hello, Direction.TO_SERVER)) == []
    (linked,) = late.saw_wire(wire(answer, Direction.TO_CLIENT))
    assert isinstance(linked, Linked) and not linked.serves


def test_a_piece_behind_a_records_head_or_in_the_middle_of_a_segment_is_found() -> None:
    first, second, answer = record(), record(), record()
    linker = Linker()
    linker.saw_wire(wire(first + second, Direction.TO_SERVER))
    linker.saw_wire(wire(answer, Direction.TO_CLIENT))
    assert linker.saw_cipher(seen(second, READ)) == []
    assert [type(each) for each in linker.saw_cipher(seen(answer[5:], WRITE))] == [Linked]


def test_two_pieces_of_one_direction_are_enough_and_the_same_piece_twice_is_not() -> None:
    hello, more = record(), record()
    linker = Linker()
    linker.saw_wire(wire(hello, Direction.TO_SERVER))
    linker.saw_wire(wire(more, Direction.TO_SERVER))
    assert linker.saw_cipher(seen(hello, WRITE)) == linker.saw_cipher(seen(hello, WRITE)) == []
    (linked,) = linker.saw_cipher(seen(more, WRITE))
    assert isinstance(linked, Linked) and linked.by == "two pieces of ciphertext that it wrote"


def test_pieces_on_two_connections_unlink_for_good() -> None:
    hello, answer, more = record(), record(), record()
    linker = Linker()
    linker.saw_wire(wire(hello, Direction.TO_SERVER, on(5000)))
    linker.saw_wire(wire(answer, Direction.TO_CLIENT, on(5001)))
    linker.saw_cipher(seen(hello, READ))
    (unlinked,) = linker.saw_cipher(seen(answer, WRITE))
    assert isinstance(unlinked, Unlinked) and unlinked.why == "its ciphertext was seen on two connections"
    linker.saw_wire(wire(more, Direction.TO_CLIENT, on(5000)))
    assert linker.saw_cipher(seen(more, WRITE)) == []


def test_a_replayed_piece_proves_nothing() -> None:
    hello = record()
    linker = Linker()
    linker.saw_wire(wire(hello, Direction.TO_SERVER, on(5000)))
    linker.saw_wire(wire(hello, Direction.TO_SERVER, on(6666)))
    (unlinked,) = linker.saw_cipher(seen(hello, READ))
    assert isinstance(unlinked, Unlinked) and "more than one connection" in unlinked.why


def test_later_evidence_that_disagrees_takes_a_link_back() -> None:
    hello, answer, other = record(), record(), record()
    linker = Linker()
    linker.saw_wire(wire(hello, Direction.TO_SERVER))
    linker.saw_wire(wire(answer, Direction.TO_CLIENT))
    linker.saw_wire(wire(other, Direction.TO_CLIENT, on(7777)))
    linker.saw_cipher(seen(hello, READ))
    assert isinstance(linker.saw_cipher(seen(answer, WRITE))[0], Linked)
    assert isinstance(linker.saw_cipher(seen(other, WRITE))[0], Unlinked)


def test_ends_that_do_not_agree_about_who_serves_are_not_linked() -> None:
    hello, answer = record(), record()
    linker = Linker()
    linker.saw_wire(wire(hello, Direction.TO_SERVER))
    linker.saw_wire(wire(answer, Direction.TO_SERVER))
    linker.saw_cipher(seen(hello, READ))
    assert isinstance(linker.saw_cipher(seen(answer, WRITE))[0], Unlinked)


def test_a_retransmitted_piece_is_the_same_piece() -> None:
    hello, answer = record(), record()
    linker = Linker()
    for _ in range(3):
        linker.saw_wire(wire(hello, Direction.TO_SERVER))
        linker.saw_wire(wire(answer, Direction.TO_CLIENT))
    linker.saw_cipher(seen(hello, READ))
    assert isinstance(linker.saw_cipher(seen(answer, WRITE))[0], Linked)


def test_an_end_without_evidence_is_said_after_a_while_and_evidence_in_between_counts() -> None:
    hello, answer = record(), record()
    linker = Linker()
    for which in (about(1), about(2)):
        linker.saw_cipher(seen(hello if which == about(1) else record(), READ, which))
        linker.saw_cipher(seen(answer if which == about(1) else record(), WRITE, which))
        linker.closed(TlsClosed(which, 100, TlsEnd.FREED))
    assert linker.expire(200) == []
    linker.saw_wire(wire(hello, Direction.TO_SERVER))
    assert [type(each) for each in linker.saw_wire(wire(answer, Direction.TO_CLIENT))] == [Linked]
    (unlinked,) = linker.expire(100 + GRACE_NS)
    assert unlinked.object == about(2)
    assert linker.expire(100 + 2 * GRACE_NS) == []


def test_a_process_that_ends_takes_its_objects_with_it() -> None:
    linker = Linker()
    linker.saw_cipher(seen(record(), READ))
    (closed,) = linker.ended(ProcessEnded(PROCESS, 100))
    assert closed == TlsClosed(about(), 100, TlsEnd.PROCESS_ENDED)
    assert [each.object for each in linker.expire(100 + GRACE_NS)] == [about()]


def test_a_flood_of_objects_and_pieces_is_bounded() -> None:
    linker = Linker()
    for number in range(20_000):
        linker.saw_cipher(seen(number.to_bytes(64, "little"), WRITE, about(number)))
    assert len(linker._objects) == len(linker._waiting) == 16384
    for number in range(5000):
        linker.saw_wire(wire(record(), Direction.TO_SERVER, on(number)))
    assert len(linker._recent) == 2048 and len(linker._starts) <= 2 * 2048
