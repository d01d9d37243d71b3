"""Open doors of a real server: a second port, Unix sockets with a path and without, a child's, and who is connected to them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enforcer.kernel import owners, sockdiag
from enforcer.kernel.doors import DoorWatch
from escrow.flows.doors import Door, Doors, Family, Opened, Shut, Used
from tests.enforcer.helper.world import Net, net, until

pytestmark = pytest.mark.bpf
PORT = 7711
SERVER = """
import json, os, socket, sys
held = {}
def open_(what, name):
    if what == "tcp":
        held[name] = socket.create_server(("127.0.0.1", int(name)))
    else:
        held[name] = socket.socket(socket.AF_UNIX, {"unix": socket.SOCK_STREAM, "packets": socket.SOCK_SEQPACKET}[what])
        held[name].bind(name.replace("@", chr(0)))
        held[name].listen()
open_("tcp", sys.argv[1])
for line in sys.stdin:
    what, name = json.loads(line)
    if what == "close":
        held.pop(name).close()
    elif what == "accept":
        held["accepted"] = held[name].accept()
    elif what == "fork":
        if os.fork() == 0:
            child = socket.create_server(("127.0.0.1", int(name)))
            sys.stdout.write("done\\n"); sys.stdout.flush()
            sys.stdin.read()
            os._exit(0)
        continue
    else:
        open_(what, name)
    sys.stdout.write("done\\n"); sys.stdout.flush()
"""


class Server:
    def __init__(self, inside: Net) -> None:
        command = ["ip", "netns", "exec", inside.name, sys.executable, "-c", SERVER, str(PORT)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, what: str, name: str) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([what, name]) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        self.process.kill()
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


@pytest.fixture
def guarded() -> Iterator[Net]:
    with net("o") as made:
        yield made


@pytest.fixture
def server(guarded: Net) -> Iterator[Server]:
    made = Server(guarded)
    yield made
    made.end()


@pytest.fixture
def watch(guarded: Net, server: Server) -> Iterator[DoorWatch]:
    with guarded.run(sockdiag.open_socket) as diag:
        made = DoorWatch(diag, frozenset({PORT}))
        until(lambda: made.snapshot() and made.servers)
        yield made


def within(watch: DoorWatch, doors: Doors, seconds: float = 1.0) -> list[Any]:
    """The first changes, which come within a second of their cause."""
    begun = time.monotonic()
    found = until(lambda: doors.see(watch.snapshot(frozenset({os.getpid()}))), wait_s=5)
    assert time.monotonic() - begun < seconds
    return found


def test_the_guarded_port_is_no_door(watch: DoorWatch, server: Server) -> None:
    assert watch.snapshot().doors == ()
    assert server.process.pid in watch.servers and os.getpid() not in watch.servers


def test_a_second_port_its_use_and_its_end_are_seen(watch: DoorWatch, server: Server, guarded: Net) -> None:
    doors = Doors()
    server.do("tcp", "7712")
    opened = within(watch, doors)
    assert [type(change) for change in opened] == [Opened]
    assert (opened[0].door.family, opened[0].door.address, opened[0].door.pid) == (Family.TCP, "127.0.0.1:7712", server.process.pid)
    with guarded.connect("127.0.0.1", 7712) as client:  # not accepted: it waits in the queue
        (used,) = within(watch, doors)
        assert used == Used(opened[0].door, f"127.0.0.1:{client.getsockname()[1]}")
        assert doors.see(watch.snapshot()) == []
    server.do("close", "7712")
    assert Shut(opened[0].door) in within(watch, doors)


@pytest.mark.parametrize("what", ["unix", "packets"])
@pytest.mark.parametrize("abstract", [False, True])
def test_a_unix_socket_and_its_use_are_seen(watch: DoorWatch, server: Server, guarded: Net, tmp_path: Path, what: str, abstract: bool) -> None:
    doors, name = Doors(), "@holdfast-door" if abstract else str(tmp_path / "door")
    server.do(what, name)
    (opened,) = within(watch, doors)
    assert isinstance(opened, Opened) and (opened.door.family, opened.door.address) == (Family.UNIX, name)
    kind = socket.SOCK_STREAM if what == "unix" else socket.SOCK_SEQPACKET
    with guarded.run(lambda: socket.socket(socket.AF_UNIX, kind)) as client:
        client.connect(name.replace("@", "\0"))
        assert within(watch, doors) == [Used(opened.door, "a local process")]
        server.do("accept", name)
        assert not [change for change in doors.see(watch.snapshot()) if not isinstance(change, Used)]
    assert doors.open == {opened.door.inode: opened.door}


def test_a_door_of_the_servers_child_is_the_servers(watch: DoorWatch, server: Server) -> None:
    doors = Doors()
    server.do("fork", "7713")
    found = until(lambda: [each for each in doors.see(watch.snapshot()) if isinstance(each, Opened)], wait_s=2)
    assert [each.door.address for each in found] == ["127.0.0.1:7713"]
    assert found[0].door.pid != server.process.pid and found[0].door.pid in watch.servers


def test_somebody_elses_port_is_no_door(watch: DoorWatch, guarded: Net) -> None:
    with guarded.run(lambda: socket.create_server(("127.0.0.1", 7714))):
        assert watch.snapshot(frozenset({os.getpid()})).doors == ()


def test_a_server_that_starts_again_is_found_again(watch: DoorWatch, server: Server, guarded: Net) -> None:
    server.end()
    again = Server(guarded)
    try:
        until(lambda: watch.snapshot() and again.process.pid in watch.servers)
        again.do("tcp", "7715")
        assert isinstance(until(lambda: watch.snapshot().doors)[0], Door)
    finally:
        again.end()


def test_a_name_of_a_process_cannot_fake_its_parent() -> None:
    renames = "import sys; open('/proc/self/comm', 'w').write(') R 1 1'); print(flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", renames], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdin is not None
    child.stdout.readline()
    with socket.create_server(("127.0.0.1", 0)) as held:
        census = owners.Census(frozenset({os.fstat(held.fileno()).st_ino}))
        census.look()
        assert {os.getpid(), child.pid} <= census.family()
    child.stdin.close()
    child.stdout.close()
    child.wait(10)


def test_who_was_added_since_the_last_walk_is_found_and_who_let_go_is_none(guarded: Net, server: Server) -> None:
    with guarded.run(sockdiag.open_socket) as diag:
        watch = DoorWatch(diag, frozenset({PORT}), refresh_s=0, walk_s=3600)
        until(lambda: watch.snapshot() and watch.servers)
        server.do("fork", "7716")
        (door,) = until(lambda: watch.snapshot().doors)
        assert door.address == "127.0.0.1:7716" and door.pid != server.process.pid and door.pid in watch.servers
        server.do("close", str(PORT))  # its child holds it still
        until(lambda: watch.snapshot() and server.process.pid not in watch.servers)
        assert door.pid in watch.servers
