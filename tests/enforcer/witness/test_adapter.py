"""The adapter: batches of events, notes and snapshots in; alarms, messages and counters out."""

from __future__ import annotations

import asyncio

import pytest

from enforcer.witness import Alarm, WitnessAdapter
from enforcer.witness.adapter import TICK_S
from escrow.events import Event, Linked, Lost, TcpSlice, TlsClosed, TlsDirection, TlsEnd, TlsOpened
from escrow.evidence.canonical import decode, encode
from escrow.flows.digest import digest
from escrow.flows.doors import Door, Family, Snapshot, Visit
from escrow.flows.messages import Message, Rpc
from escrow.flows.notes import Accepted, Released
from escrow.flows.observed import observed
from escrow.trace import Traces, record_of
from escrow.verdict import Finding, Verdict
from tests.escrow.flows.traffic import DOWN, PROCESS, UP, Talk, answer, connection, post, tls_calls, tls_object

PORTS = frozenset({8000})
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ASK = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file"}}'
SAID = b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}'
EXCHANGE: list[TcpSlice] = (
    Talk().say(UP, post(ASK, f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n")).say(DOWN, answer(SAID, "Mcp-Session-Id: s\r\n")).close().events
)
TLS: list[Event] = [
    TlsOpened(tls_object(), 0, True),
    *tls_calls(tls_object(), TlsDirection.READ, [post(ASK)]),
    *tls_calls(tls_object(), TlsDirection.WRITE, [answer(SAID)]),
    Linked(tls_object(), connection(), True, 0, "test"),
    TlsClosed(tls_object(), 1, TlsEnd.FREED),
]


class World:
    """An adapter, what came of it, and a clock of our own."""

    def __init__(self, ports: frozenset[int] | None = PORTS) -> None:
        self.alarms: list[Alarm] = []
        self.messages: list[Message] = []
        self.now_ns = 0
        self.ring: list[Event] = []
        self.adapter = WitnessAdapter(ports, self.alarms.append, self.messages.append, self.drain, clock_ns=lambda: self.now_ns)

    def drain(self) -> None:
        ring, self.ring = self.ring, []
        self.adapter.events(ring)

    def later(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)
        self.adapter.tick()


def test_what_was_released_raises_no_alarm_and_is_counted() -> None:
    world = World()
    world.adapter.note(Accepted(connection()))
    world.adapter.note(Released(digest(SAID), connection(), DOWN))
    world.ring += EXCHANGE
    world.later(60)
    assert world.alarms == [] and world.adapter.clean
    assert world.adapter.counters()["witnessed"] == 1


def test_a_bypass_is_an_alarm_an_entry_and_no_clean_status() -> None:
    world = World()
    world.adapter.note(Accepted(connection()))
    world.ring += EXCHANGE
    world.later(1)
    assert world.alarms == []  # the note may still come
    world.later(10)
    (alarm,) = world.alarms
    assert alarm.certain and alarm.where == "127.0.0.1:40000 > 127.0.0.1:8000" and not world.adapter.clean
    entry = decode(encode(alarm.entry(), 1, "2026-11-23T12:00:00.000000Z", b"s" * 32))
    assert (entry["event"], entry["certain"], entry["size"]) == ("bypass", True, len(SAID))


def test_lateness_of_the_ring_is_not_taken_for_silence() -> None:
    """The note came long ago; the taps were behind."""
    world = World()
    world.adapter.note(Accepted(connection()))
    world.adapter.note(Released(digest(SAID), connection(), DOWN))
    world.later(1000)
    world.ring += EXCHANGE
    world.later(0.1)
    assert world.alarms == []


def test_tls_beside_the_gate_is_a_bypass_even_when_it_ends_at_once() -> None:
    world = World()
    world.adapter.snapshot(Snapshot((), ()), frozenset({PROCESS.pid}))
    world.ring += TLS
    world.later(1)
    world.later(10)
    assert [(alarm.certain, alarm.where) for alarm in world.alarms] == [(True, "127.0.0.1:40000 > 127.0.0.1:8000")]


def test_open_doors_and_their_visitors_are_alarms() -> None:
    world = World()
    door = Door(Family.TCP, 5, "0.0.0.0:9000", 77)
    world.adapter.snapshot(Snapshot((door,), ()), frozenset())
    assert not world.adapter.clean
    world.adapter.snapshot(Snapshot((door,), (Visit(5, 1, "10.0.0.1:3"),)), frozenset())
    world.adapter.snapshot(Snapshot((), ()), frozenset())
    assert [alarm.where for alarm in world.alarms] == ["tcp 0.0.0.0:9000 of process 77"] * 2
    assert "10.0.0.1:3" in world.alarms[1].what
    assert not world.adapter.clean and world.adapter.counters()["doors_open"] == 0  # it was used


def test_lost_records_are_an_alarm_that_is_not_certain() -> None:
    world = World()
    world.ring.append(Lost("tap", 0, "ring full", 3, 0))
    world.later(0.1)
    assert [(alarm.certain, alarm.where) for alarm in world.alarms] == [(False, "")] and not world.adapter.clean


def test_a_flood_of_alarms_is_told_as_a_number() -> None:
    world = World()
    world.ring += [Lost("tap", 0, "ring full", 1, 0) for _ in range(500)]
    world.later(0.1)
    world.later(61)
    assert len(world.alarms) == 101 and world.adapter.counters()["alarms_suppressed"] == 400
    assert "400 more" in world.alarms[-1].what


def test_observing_compares_nothing_and_gives_messages() -> None:
    world = World(None)
    world.ring += EXCHANGE
    world.later(10)
    assert world.alarms == [] and world.adapter.clean
    asked, said = (message.content for message in world.messages)
    assert isinstance(asked, Rpc) and isinstance(said, Rpc) and said.call is asked.message


@pytest.mark.parametrize("content", [False, True])
def test_a_message_seen_becomes_an_entry_and_a_record(content: bool) -> None:
    world = World(None)
    world.ring += [*EXCHANGE, *TLS[:1], TLS[3], *TLS[1:3]]
    world.later(10)
    traces = Traces(lambda: b"\x07" * 16)
    verdict = Verdict("scanner", Finding.CLEAN, 0.0)
    records = []
    for number, message in enumerate(world.messages):
        entry = observed(message, (verdict,), traces, "python3" if message.unit.process else "", content=content)
        assert (entry.method, entry.tool, entry.connection) == ("tools/call", "read_file", "127.0.0.1:40000 > 127.0.0.1:8000")
        record = record_of(decode(encode(entry, number, "2026-11-23T12:00:00.000000Z", b"s" * 32)))
        assert record is not None
        records.append((record.trace_id, record.direction, record.pid, record.process, record.raw()))
    raw = (ASK, SAID) if content else (None, None)
    assert records == [
        (TRACE, "to-server", None, "", raw[0]),
        (TRACE, "to-client", None, "", raw[1]),
        ("07" * 16, "to-server", PROCESS.pid, "python3", raw[0]),
        ("07" * 16, "to-client", PROCESS.pid, "python3", raw[1]),
    ]


@pytest.mark.anyio
async def test_it_runs_by_itself() -> None:
    drained = asyncio.Event()
    task = asyncio.create_task(WitnessAdapter(PORTS, lambda alarm: None, drain=drained.set).run())
    await asyncio.wait_for(drained.wait(), 50 * TICK_S)
    task.cancel()
