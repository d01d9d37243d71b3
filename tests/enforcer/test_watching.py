"""The taps' end in the daemon: what a process of theirs may say, what is shown of it, and that bytes which are none end it and not the gate."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import pytest
from pydantic import BaseModel

from enforcer.helper import wire
from enforcer.helper.sights import AddressesSeen, DoorSeen, DoorsHidden, DoorsSeen, Named, NamesSeen, TapAbsent, TapAttached, TargetsSeen, VisitSeen
from enforcer.watching import BESIDE, Watch
from escrow.events import Connection, Direction, Endpoint, Process, TcpFlags, TcpSlice, TlsDirection, TlsObject, TlsOpened, TlsSlice, Unlinked
from escrow.evidence.entry import Bypassed
from escrow.flows.outcome import Why

pytestmark = pytest.mark.anyio
DOOR = DoorSeen(family="tcp", inode=7, address="127.0.0.1:9000", pid=41)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Taps:
    """A watch on port 80, and the other end of its socket."""

    def __init__(self) -> None:
        self.found: list[Bypassed] = []
        self.watch = Watch(80, False, self.found.append)
        self.end = self.join()

    def join(self) -> socket.socket:
        ours, theirs = wire.pair()
        self.watch.join_taps(theirs)
        return ours

    async def say(self, *sights: BaseModel) -> None:
        for sight in sights:
            wire.send(self.end, sight)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def close(self) -> None:
        await self.watch.close()
        self.end.close()


async def test_taps_that_cannot_be_had_say_why_and_nothing_else_changes() -> None:
    taps = Taps()
    await taps.say(TapAbsent(source="tap", why="no BTF"), TapAbsent(source="tls", why="no right"))
    shown = taps.watch.status()
    assert shown["taps"] == {"tap": "absent, because no BTF", "tls": "absent, because no right"}
    assert not taps.watch.attached and not taps.watch.bypassed and not taps.found
    await taps.close()


async def test_a_door_is_listed_when_it_opens_and_a_visit_is_a_bypass_once() -> None:
    taps = Taps()
    await taps.say(DoorsSeen(doors=(DOOR,), visits=(), servers=(41,), left_out=0), NamesSeen(names=(Named(pid=41, name="python3", group="mcp.service"),)))
    shown = taps.watch.status()
    assert shown["open_doors"] == [{"family": "tcp", "address": "127.0.0.1:9000", "pid": 41, "name": "python3 in mcp.service"}]
    assert len(taps.found) == 1 and not taps.watch.bypassed, "a door that nobody used is none yet"
    visit = VisitSeen(door=7, key=-1, peer="127.0.0.1:5555")
    for _ in range(2):
        await taps.say(DoorsSeen(doors=(DOOR,), visits=(visit,), servers=(41,), left_out=0))
    assert [each.certain for each in taps.found] == [True, True] and "127.0.0.1:5555" in taps.found[1].what
    await taps.say(DoorsSeen(doors=(), visits=(), servers=(41,), left_out=0))
    assert taps.watch.status()["open_doors"] == [] and taps.watch.bypassed, "as long as this run lasts"
    await taps.close()


async def test_more_doors_than_can_be_listed_hide_nothing() -> None:
    taps = Taps()
    await taps.say(DoorsSeen(doors=(DOOR,), visits=(), servers=(41,), left_out=3))
    await taps.say(DoorsSeen(doors=(DOOR,), visits=(), servers=(41,), left_out=0))
    assert taps.watch.bypassed and any("3 more doors" in each.what for each in taps.found)
    await taps.close()


async def test_what_is_unprobed_hidden_and_not_covered_is_shown() -> None:
    taps = Taps()
    await taps.say(TargetsSeen(probed=2, uncovered=("/usr/bin/go-thing: Go's own TLS",), full=False, unprobed=1), DoorsHidden(why="no right"))
    shown = taps.watch.status()
    assert (shown["tls_files_probed"], shown["not_covered"], shown["doors"]) == (2, ["/usr/bin/go-thing: Go's own TLS"], "not watched: no right")
    assert shown["counters"]["records_lost"] == 1 and shown["counters"]["unsure"] == 1
    await taps.close()


@pytest.mark.parametrize(
    "said", [b"{}", b"no json", b'{"type":"tap_attached","source":"tap","ring_bytes":4096}', b'{"type":"tap_absent","source":"tap","why":"\\u001b[2J"}']
)
async def test_what_is_no_sight_ends_the_taps_and_not_the_gate(said: bytes) -> None:
    taps = Taps()
    taps.end.send(said)
    await taps.settle()
    assert taps.watch.status()["taps"]["tap"] == "absent, because its packets cannot be read"
    assert [(each.certain, each.what) for each in taps.found] == [(False, "the taps saw nothing for a while: its packets cannot be read")]
    assert taps.end.recv(1) == b""
    await taps.close()


async def test_descriptors_that_no_sight_has_are_closed() -> None:
    taps = Taps()
    before = descriptors()
    with socket.socket() as passed:
        wire.send(taps.end, AddressesSeen(networks=()), passed.fileno())
        wire.send(taps.end, TapAttached(source="tap", ring_bytes=4096), passed.fileno())
    await taps.settle()
    assert descriptors() == before - 1, "its own end of the socket, and nothing more"
    await taps.close()


async def test_another_process_of_the_taps_takes_over() -> None:
    taps = Taps()
    taps.end.close()
    await taps.settle()
    assert taps.watch.status()["taps"]["tls"] == "absent, because its process ended"
    taps.end = taps.join()
    await taps.say(TapAbsent(source="tap", why="again"))
    assert taps.watch.status()["taps"]["tap"] == "absent, because again"
    await taps.close()


async def test_a_server_that_asks_somebody_over_tls_is_told_of_once_and_counted_each_time() -> None:
    taps = Taps()
    server = Process(41, 1, 0, 0)
    await taps.say(DoorsSeen(doors=(), visits=(), servers=(41,), left_out=0))
    for number in range(3):
        about = TlsObject(server, 0x1000, number)
        said = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
        taps.watch.adapter.events(
            [
                TlsOpened(about, number, True),
                TlsSlice(about, TlsDirection.WRITE, number, 1, 0, 0, len(said), said, 0, True),
                Unlinked(about, number, "no port of ours"),
            ]
        )
    taps.watch.adapter.tick()
    assert taps.watch.status()["counters"]["unsure"] == 3 and not taps.watch.bypassed
    assert [each.certain for each in taps.found] == [False]
    await taps.close()


async def test_what_was_seen_is_not_judged_before_the_notes_have_come_so_far() -> None:
    """A daemon that is held up notes late what it released; the clock alone must not make a bypass of it."""
    found: list[Bypassed] = []
    until_ns, asked = 0, 0

    def noted_ns() -> int:
        nonlocal asked
        asked += 1
        return until_ns

    watch = Watch(80, False, found.append, noted_ns=noted_ns, pace=BESIDE)
    ours, theirs = wire.pair()
    watch.join_taps(theirs)
    connection = Connection(Endpoint("127.0.0.1", 5), Endpoint("127.0.0.1", 80))
    body = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    watch.adapter.events([TcpSlice(connection, Direction.TO_CLIENT, 1, 1, body, 0, TcpFlags.NONE, 1)])
    async with asyncio.timeout(5):
        while asked < 6:  # noqa: ASYNC110  a tick at every second one, at least
            await asyncio.sleep(0.01)
    assert not found, "much later by the clock, and the notes have not reached that time"
    until_ns = time.monotonic_ns()
    async with asyncio.timeout(5):
        while not found:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert found[0].certain and found[0].what == Why.UNKNOWN_CONNECTION.value
    await watch.close()
    ours.close()
