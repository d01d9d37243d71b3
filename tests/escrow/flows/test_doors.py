"""Doors from snapshot to snapshot: each change is told once."""

from __future__ import annotations

from escrow.flows.doors import Door, Doors, Family, Opened, Shut, Snapshot, Used, Visit

PORT, PATH = Door(Family.TCP, 1, "0.0.0.0:9000", 7), Door(Family.UNIX, 2, "@x", 8)


def test_a_door_opens_is_used_and_shuts_once_each() -> None:
    doors = Doors()
    visit = Visit(1, 5, "10.0.0.1:4000")
    assert doors.see(Snapshot((PORT, PATH), ())) == [Opened(PORT), Opened(PATH)]
    assert doors.see(Snapshot((PORT, PATH), (visit,))) == [Used(PORT, "10.0.0.1:4000")]
    assert doors.see(Snapshot((PORT, PATH), (visit,))) == []
    assert doors.see(Snapshot((PORT,), (visit, Visit(1, 6, "b")))) == [Used(PORT, "b"), Shut(PATH)]
    assert doors.see(Snapshot((PORT,), ())) == []
    assert doors.see(Snapshot((PORT,), (visit,))) == [Used(PORT, "10.0.0.1:4000")]  # the same ports, another connection


def test_the_same_address_by_another_socket_is_another_door() -> None:
    doors = Doors()
    doors.see(Snapshot((PORT,), ()))
    again = Door(Family.TCP, 3, PORT.address, 9)
    assert doors.see(Snapshot((again,), ())) == [Opened(again), Shut(PORT)]
    assert doors.open == {3: again}
