"""The witness: what was released is never a bypass, in whatever order and pieces it is seen; what was not always is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.events import Connection, Endpoint, Event, Linked, Lost, TcpSlice, TlsDirection, TlsOpened, Unlinked
from escrow.flows.digest import digest
from escrow.flows.flows import Flows
from escrow.flows.notes import Accepted, Closed, Dialed, Note, Released, connection_of
from escrow.flows.outcome import Bypass, Outcome, Unsure, Why
from escrow.flows.witness import Windows, Witness
from escrow.sse import Event as Said
from escrow.sse import encode
from tests.escrow.flows.traffic import DOWN, PROCESS, UP, Talk, answer, connection, opening, post, slice_of, stream, tls_calls, tls_object

LINK = connection()
OWN = connection(50000)
"""The gate's own, to the server."""
MESSAGES = [b'{"jsonrpc":"2.0","id":%d,"result":"%b"}' % (number, b"r" * number * 37) for number in range(4)]
ASKS = [b'{"jsonrpc":"2.0","id":%d,"method":"tools/call"}' % number for number in range(4)]
LATER = 10**11


def gate(messages: list[bytes], *, events: bool = False) -> tuple[list[Note], list[TcpSlice]]:
    """What the gate notes and what the wire carries when it releases these messages, as bodies or as events of one stream."""
    front, back = Talk(LINK), Talk(OWN)
    notes: list[Note] = [Accepted(LINK), Dialed(OWN)]
    if events:
        front.say(UP, b"GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n")
        front.say(DOWN, stream(*(encode(Said("message", raw)) for raw in messages)))
    for number, raw in enumerate(messages):
        notes.append(Released(digest(ASKS[number]), OWN, UP))
        notes.append(Released(digest(raw), LINK, DOWN))
        back.say(UP, post(ASKS[number])).say(DOWN, answer(b'{"raw":"of the server"}'))
        if not events:
            front.say(UP, post(ASKS[number])).say(DOWN, answer(raw))
    return notes, [*front.close().events, *back.close().events]


def judge(notes: list[Note], events: list[TcpSlice], *, notes_late: bool = False, witness: Witness | None = None) -> list[Outcome]:
    witness = witness or Witness(frozenset({8000}))
    flows = Flows()
    if not notes_late:
        for note in notes:
            witness.note(note)
    for unit in flows.feed(events):
        witness.saw(unit)
    if notes_late:
        for note in notes:
            witness.note(note)
    for unit in [*flows.tick(LATER), *flows.close(LATER)]:
        witness.saw(unit)
    witness.tick(2 * LATER)
    return witness.out


def bypasses(outcomes: list[Outcome]) -> list[Why]:
    return [outcome.why for outcome in outcomes if isinstance(outcome, Bypass)]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("events", [False, True])
def test_what_was_released_is_witnessed_whether_the_note_or_the_sight_comes_first(events: bool, late: bool) -> None:
    witness = Witness(frozenset({8000}))
    assert judge(*gate(MESSAGES, events=events), notes_late=late, witness=witness) == []
    assert witness.tally.witnessed == 2 * len(MESSAGES)


@st.composite
def seen(draw: st.DrawFn) -> tuple[list[Note], list[TcpSlice]]:
    """Honest traffic cut anywhere, doubled and swapped within a connection's window."""
    notes, events = gate(MESSAGES, events=draw(st.booleans()))
    cut: list[TcpSlice] = []
    for event in events:
        at = draw(st.integers(0, len(event.data))) if event.data else 0
        if 0 < at < len(event.data):
            cut.append(replace(event, data=event.data[:at]))
            cut.append(replace(event, data=event.data[at:], sequence=(event.sequence + at) & 0xFFFFFFFF))
        else:
            cut.append(event)
    heads, tail = cut[:2], cut[2:]  # the handshake of the first connection; what comes before its SYN was joined in the middle
    order = draw(st.lists(st.integers(0, 3), min_size=len(tail), max_size=len(tail)))
    moved = [event for _, _, event in sorted((number + shift, number, event) for number, (shift, event) in enumerate(zip(order, tail, strict=True)))]
    doubled = [each for event in moved for each in ([event, event] if draw(st.integers(0, 9)) == 0 else [event])]
    return notes, [*heads, *_handshakes_first(doubled)]


def _handshakes_first(events: list[TcpSlice]) -> list[TcpSlice]:
    """No connection's bytes come before its SYN: nothing could have sent them."""
    return [event for event in events if event.flags & 2] + [event for event in events if not event.flags & 2]


@given(seen(), st.booleans())
def test_reordering_doubling_and_splitting_are_no_bypass(honest: tuple[list[Note], list[TcpSlice]], late: bool) -> None:
    assert judge(*honest, notes_late=late) == []


@given(st.integers(0, 3), st.integers(0, 10_000), st.integers(1, 255), st.booleans())
def test_a_message_altered_in_any_bit_is_a_bypass(which: int, at: int, mask: int, events: bool) -> None:
    notes, _ = gate(MESSAGES, events=events)
    raw = MESSAGES[which]
    at %= len(raw)
    altered = raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1 :]
    if events and (b"\r" in altered or b"\n" in altered):
        return  # an event has line ends elsewhere; the message is another one
    found = judge(notes, gate([*MESSAGES[:which], altered, *MESSAGES[which + 1 :]], events=events)[1])
    assert bypasses(found) == [Why.NOT_RELEASED]


@given(st.binary(min_size=1, max_size=200))
def test_a_message_nobody_released_is_a_bypass(raw: bytes) -> None:
    notes, events = gate(MESSAGES)
    if raw in MESSAGES:
        return
    talk = Talk(LINK)
    for number, message in enumerate([*MESSAGES, raw]):
        talk.say(UP, post(ASKS[number % 4])).say(DOWN, answer(message))
    assert bypasses(judge(notes, [*talk.events, *(each for each in events if each.connection is OWN)])) == [Why.NOT_RELEASED]


def test_released_once_and_sent_twice_is_a_bypass() -> None:
    notes, _ = gate(MESSAGES[:1])
    talk = Talk(LINK).say(UP, post(ASKS[0])).say(DOWN, answer(MESSAGES[0])).say(UP, post(ASKS[0])).say(DOWN, answer(MESSAGES[0]))
    assert bypasses(judge(notes, talk.events)) == [Why.NOT_RELEASED]
    again: list[Note] = [*notes, Released(digest(MESSAGES[0]), LINK, DOWN)]
    assert judge(again, talk.events) == []


def test_what_was_released_for_one_client_and_seen_by_another_is_a_bypass() -> None:
    other = connection(40001)
    notes: list[Note] = [Accepted(LINK), Accepted(other), Released(digest(MESSAGES[1]), LINK, DOWN)]
    talk = Talk(other).say(UP, post(ASKS[1])).say(DOWN, answer(MESSAGES[1]))
    assert bypasses(judge(notes, talk.events)) == [Why.NOT_RELEASED]


def test_a_call_that_the_gate_did_not_let_through_is_a_bypass() -> None:
    talk = Talk(OWN).say(UP, post(ASKS[1]))
    assert bypasses(judge([Dialed(OWN)], talk.events)) == [Why.NOT_RELEASED]
    assert judge([Dialed(OWN), Released(digest(ASKS[1]), OWN, UP)], talk.events) == []


def test_a_connection_that_is_not_the_gates_is_one_bypass_whatever_it_says() -> None:
    for talk in (
        Talk().say(UP, post(ASKS[0])).say(DOWN, answer(MESSAGES[0])).close(),
        Talk().say(UP, b"\x16\x03\x01hello").say(DOWN, b"\x16\x03\x03hello"),
        Talk().say(UP, b"GET / HTTP/1.1\r\n\r\n"),
        Talk().say(DOWN, b"220 some other protocol"),
    ):
        assert bypasses(judge([], talk.events)) == [Why.UNKNOWN_CONNECTION]
    assert judge([], Talk().close().events) == []  # nothing was said
    assert judge([], Talk(Connection(Endpoint("10.0.0.9", 1), Endpoint("10.0.0.1", 9999))).say(UP, b"GET").events) == []  # another port


def test_tls_where_the_gate_speaks_plainly_is_a_bypass_and_where_it_speaks_tls_is_none() -> None:
    talk = Talk().say(UP, b"\x16\x03\x01hello").say(DOWN, b"\x16\x03\x03hello")
    assert bypasses(judge([Accepted(LINK)], talk.events)) == [Why.OPAQUE]
    witness = Witness(frozenset({8000}))
    assert judge([Accepted(LINK, opaque=True)], talk.events, witness=witness) == []
    assert witness.tally.opaque == 1


@pytest.mark.parametrize("lost", range(0, len(answer(MESSAGES[0])), 7))
def test_what_was_not_seen_whole_is_unsure_and_never_witnessed(lost: int) -> None:
    whole = answer(MESSAGES[0])
    events = [*Talk(LINK).say(UP, post(ASKS[0])).events, slice_of(LINK, DOWN, 0, whole[:lost]), slice_of(LINK, DOWN, lost + 1, whole[lost + 1 :])]
    witness = Witness(frozenset({8000}))
    found = judge(gate(MESSAGES[:1])[0], [*events, slice_of(LINK, DOWN, len(whole), b"H")], witness=witness)
    assert found and all(isinstance(each, Unsure) and each.why is Why.INCOMPLETE for each in found)
    assert witness.tally.witnessed == 0


def test_a_forgery_under_a_packet_that_the_receiver_dropped_is_told() -> None:
    """The tap takes the first copy, the receiver the second."""
    good, forged = answer(MESSAGES[1]), answer(MESSAGES[1].replace(b"r", b"x"))
    events = [*Talk(LINK).say(UP, post(ASKS[1])).events, slice_of(LINK, DOWN, 0, good), slice_of(LINK, DOWN, 0, forged)]
    notes: list[Note] = [Accepted(LINK), Released(digest(MESSAGES[1]), LINK, DOWN)]
    found = judge(notes, events)
    assert [each.why for each in found] == [Why.INCOMPLETE]


def test_a_client_that_leaves_in_the_middle_of_a_stream_is_nothing() -> None:
    talk = Talk(LINK).say(UP, b"GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n")
    talk.say(DOWN, stream(encode(Said("message", MESSAGES[0])), end=False)).close()
    assert judge([Accepted(LINK), Released(digest(MESSAGES[0]), LINK, DOWN)], talk.events) == []


def test_line_ends_do_not_make_another_message() -> None:
    raw = b'{"jsonrpc":"2.0",\r\n"id":1,\r"result":\n{}}'
    talk = Talk(LINK).say(UP, b"GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n").say(DOWN, stream(encode(Said("message", raw))))
    assert judge([Accepted(LINK), Released(digest(raw), LINK, DOWN)], talk.events) == []


def test_lost_records_are_told_with_their_number() -> None:
    witness = Witness(frozenset({8000}))
    witness.lost(Lost("tap", 1, "ring full", 7, 700))
    assert witness.out == [Unsure(Why.LOST, None, "tap: ring full", 7)] and witness.tally.lost_records == 7


def test_more_releases_than_are_remembered_are_unsure_only_where_they_were_never_seen() -> None:
    def run(seen_each: bool) -> list[Why]:
        witness = Witness(frozenset({8000}), windows=Windows(remembered=2))
        flows, talk = Flows(), Talk(LINK).say(UP, b"GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n").say(DOWN, stream(end=False))
        witness.note(Accepted(LINK))
        for unit in flows.feed(talk.events):
            witness.saw(unit)
        sent: list[TcpSlice] = []
        for number in range(8):
            raw = b'{"n":%d}' % number
            witness.note(Released(digest(raw), LINK, DOWN))
            talk.events.clear()
            data = encode(Said("message", raw))
            talk.say(DOWN, b"%x\r\n%b\r\n" % (len(data), data))
            sent += talk.events
            for unit in flows.feed(talk.events if seen_each else []):
                witness.saw(unit)
        for unit in flows.feed([] if seen_each else sent):
            witness.saw(unit)
        witness.tick(LATER)
        return [each.why for each in witness.out]

    assert run(seen_each=True) == []
    assert run(seen_each=False) == [Why.FORGOTTEN] * 6


def test_a_closed_connection_is_remembered_as_long_as_the_taps_may_be_behind() -> None:
    notes, events = gate(MESSAGES[:1])
    assert judge([*notes, Closed(LINK), Closed(OWN)], events) == []
    witness = Witness(frozenset({8000}))
    for note in [*notes, Closed(LINK), Closed(OWN)]:
        witness.note(note)
    witness.tick(LATER)
    assert bypasses(judge([], events, witness=witness)) == [Why.UNKNOWN_CONNECTION] * 2


class Tls:
    """A server that answers over TLS, seen in its process."""

    def __init__(self, *, servers: frozenset[int] = frozenset({PROCESS.pid}), port: int = 8000) -> None:
        self.witness, self.flows, self.object = Witness(frozenset({8000})), Flows(), tls_object()
        self.witness.servers = servers
        self.link = Connection(Endpoint("127.0.0.1", 40000), Endpoint("127.0.0.1", port))

    def run(self, *, linked: bool | None = True, notes: tuple[Note, ...] = ()) -> list[Outcome]:
        for note in notes:
            self.witness.note(note)
        calls: list[Event] = [
            TlsOpened(self.object, 0, True),
            *tls_calls(self.object, TlsDirection.READ, [post(ASKS[1])]),
            *tls_calls(self.object, TlsDirection.WRITE, [answer(MESSAGES[1])]),
        ]
        for unit in self.flows.feed(calls):
            self.witness.saw(unit)
        if linked:
            self.witness.linked(Linked(self.object, self.link, True, 1, "test"))
        elif linked is False:
            self.witness.unlinked(Unlinked(self.object, 1, "test"))
        self.witness.tick(LATER)
        return self.witness.out


def test_tls_beside_the_gate_is_a_bypass_on_any_port_of_the_servers_processes() -> None:
    assert bypasses(Tls().run()) == bypasses(Tls(port=9443).run()) == [Why.UNKNOWN_CONNECTION]
    assert Tls(port=9443, servers=frozenset()).run() == []  # somebody else's server


def test_tls_of_a_connection_of_the_gates_is_compared_like_the_plain() -> None:
    link = connection()
    assert Tls().run(notes=(Accepted(link, opaque=True), Released(digest(MESSAGES[1]), link, DOWN))) == []
    assert bypasses(Tls().run(notes=(Accepted(link, opaque=True),))) == [Why.NOT_RELEASED]


@pytest.mark.parametrize("linked", [None, False])
def test_tls_of_the_servers_that_belongs_to_no_known_connection_is_unsure(linked: bool | None) -> None:
    assert [each.why for each in Tls().run(linked=linked)] == [Why.UNLINKED]
    assert Tls(servers=frozenset()).run(linked=linked) == []


def test_a_handshake_alone_is_nothing() -> None:
    assert judge([], opening(LINK)) == []


def test_addresses_of_sockets_are_written_as_the_taps_write_them() -> None:
    assert connection_of(("::ffff:127.0.0.1", 40000), ("::ffff:127.0.0.1", 8000)) == LINK
    assert connection_of(("::1", 1), ("fe80::1", 2)).server.address == "fe80::1"


def test_on_a_connection_that_is_older_than_the_witness_what_it_did_not_hear_of_is_unsure_and_what_it_did_is_witnessed() -> None:
    notes, events = gate(MESSAGES)
    older = [replace(note, before=True) if isinstance(note, Accepted | Dialed) else note for note in notes]
    witness = Witness(frozenset({8000}))
    assert judge(older, events, witness=witness) == [] and witness.tally.witnessed == 2 * len(MESSAGES)
    unheard = [note for note in older if not isinstance(note, Released)]
    assert [each.why for each in judge(unheard, events)] == [Why.FORGOTTEN] * 2 * len(MESSAGES)
