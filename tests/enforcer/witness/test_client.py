"""The daemon's end of the witness's process: notes out, alarms in, and a process that is lost or says what it may not is an alarm itself."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from enforcer.helper import wire
from enforcer.witness.client import TAPS, WitnessClient
from enforcer.witness.language import PIECE_BYTES, AlarmRaised, Witnessed
from enforcer.witness.notes import MOST_WAITING, PACKET_BYTES, NoteReader
from escrow.events import Connection, Direction, Endpoint
from escrow.evidence.entry import Bypassed
from escrow.flows.notes import Accepted, Note, Released

pytestmark = pytest.mark.anyio
ONE = Connection(Endpoint("127.0.0.1", 50000), Endpoint("127.0.0.1", 80))
SUM = bytes(range(32))
SEEN = Witnessed(
    taps={"tap": "attached", "tls": "attached"},
    problem="",
    counters={"witnessed": 3, "flows": 2, "doors_used": 0},
    records={},
    doors="watched",
    open_doors=(),
    doors_left_out=0,
    tls_files_probed=0,
    not_covered=(),
    bypassed=False,
)


class World:
    """A client, and the other end of its process's socket."""

    def __init__(self) -> None:
        self.found: list[Bypassed] = []
        self.client = WitnessClient(self.found.append)
        self.end = self.join()

    def join(self) -> socket.socket:
        ours, theirs = wire.pair()
        self.client.join(theirs)
        return ours

    async def until(self, what: str) -> None:
        """An alarm says this."""
        await until(lambda: any(what in each.what for each in self.found))

    async def noted(self, count: int) -> list[Note]:
        """The next notes, without the times between them."""
        found: list[Note] = []
        reader = NoteReader()
        await until(lambda: bool(found.extend(each for each in received(self.end, reader) if not isinstance(each, int)) or len(found) >= count))
        return found


def received(end: socket.socket, reader: NoteReader) -> list[Note | int]:
    """What there is."""
    try:
        return list(reader.read(end.recv(1 << 16)))
    except BlockingIOError:
        return []


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not what():  # noqa: ASYNC110  the other end is no coroutine
            await asyncio.sleep(0.01)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.client.close()
    made.end.close()


def alarm(what: str, size: int = 0, bypassed: bool = True) -> bytes:
    return AlarmRaised(certain=True, what=what, where="there", bypassed=bypassed, message_bytes=size).model_dump_json().encode()


async def test_notes_go_out_together_and_time_goes_on_without_any(world: World) -> None:
    world.client.note(Accepted(ONE))
    world.client.note(Released(SUM, ONE, Direction.TO_CLIENT))
    assert await world.noted(2) == [Accepted(ONE), Released(SUM, ONE, Direction.TO_CLIENT)]
    times: list[Note | int] = []
    await until(lambda: bool(times.extend(received(world.end, NoteReader())) or len(times) > 1))
    assert all(isinstance(each, int) for each in times) and times == sorted(set(times))  # type: ignore[type-var]


async def test_an_alarm_comes_with_its_message_and_is_a_bypass_until_the_end_of_the_run(world: World) -> None:
    message = os.urandom(PIECE_BYTES + 10)
    world.end.send(alarm("not released", len(message)))
    world.end.send(message[:PIECE_BYTES])
    world.end.send(message[PIECE_BYTES:])
    await world.until("not released")
    assert world.found == [Bypassed(True, "not released", "there", message)]
    assert world.client.status()["bypassed"]
    world.end.close()
    await world.until("saw nothing for a while")
    assert world.client.status()["bypassed"], "another process of it knows nothing of that"


async def test_a_process_that_is_lost_is_an_alarm_and_the_next_one_learns_what_is_open(world: World) -> None:
    world.client.note(Accepted(ONE))
    world.end.send(SEEN.model_dump_json().encode())
    world.end.close()
    await world.until("the witness saw nothing for a while: its process ended")
    shown = world.client.status()
    assert shown["taps"]["tap"] == "absent, because the witness is gone: its process ended" and not shown["bypassed"]
    assert [each.certain for each in world.found] == [False]
    world.end = world.join()
    assert await world.noted(1) == [Accepted(ONE, before=True)]
    world.end.send(SEEN.model_dump_json().encode())
    await until(lambda: world.client.status()["taps"]["tap"] == "attached")
    assert world.client.status()["counters"] == {"witnessed": 6, "flows": 2, "doors_used": 0}


async def test_a_message_that_was_cut_by_its_end_is_still_an_alarm(world: World) -> None:
    world.end.send(alarm("not released", 100))
    world.end.close()
    await world.until("not released")
    assert world.found[0] == Bypassed(True, "not released", "there", b"")


@pytest.mark.parametrize("said", [b"{}", b"nothing", alarm("x")[:-1], alarm("x").replace(b'"x"', b'"\\u001b[2J"'), bytes(129 << 10)])
async def test_what_it_may_not_say_ends_it_and_not_the_gate(world: World, said: bytes) -> None:
    world.end.send(said)
    await world.until("its packets cannot be read")
    world.end.setblocking(True)
    world.end.settimeout(5)
    with pytest.raises(ConnectionResetError):
        while world.end.recv(1 << 16):
            pass
        raise ConnectionResetError  # closed in order: nothing was left unread


async def test_descriptors_that_nobody_asked_for_are_closed(world: World) -> None:
    with socket.socket() as passed:
        socket.send_fds(world.end, [SEEN.model_dump_json().encode()], [passed.fileno()])
        before = len(os.listdir("/proc/self/fd"))
        await world.until("its packets cannot be read")
    assert len(os.listdir("/proc/self/fd")) == before - 2, "its own end, and what the test passed"


async def test_a_process_that_does_not_read_is_given_up_before_a_note_is_lost(world: World) -> None:
    world.client.note(Accepted(ONE))
    released = Released(SUM, ONE, Direction.TO_CLIENT)
    for _ in range((MOST_WAITING + 16) * PACKET_BYTES // 38 + PACKET_BYTES):
        world.client.note(released)
    await world.until("it does not keep up with the gate")
    world.end.close()
    world.end = world.join()
    assert await world.noted(1) == [Accepted(ONE, before=True)]


@pytest.mark.parametrize("first", [True, False])
async def test_the_taps_go_straight_on_to_it_whichever_comes_first(first: bool) -> None:
    client = WitnessClient(lambda found: None)
    taps, given = wire.pair()
    ours, theirs = wire.pair()
    for join in (lambda: client.join_taps(given), lambda: client.join(theirs))[:: 1 if first else -1]:
        join()
    passed: list[int] = []

    def came() -> bool:
        try:
            packet = wire.receive(ours, 1 << 16)
        except BlockingIOError:
            return False
        assert packet is not None and (packet[0] == TAPS) is bool(packet[1])
        passed.extend(packet[1])
        return bool(passed)

    await until(came)
    wire.close(passed)
    assert taps.recv(1) == b"", "the daemon keeps no copy: with the witness the taps end"
    client.close()
    for each in (taps, ours):
        each.close()
