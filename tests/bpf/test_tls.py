"""The uprobes on OpenSSL itself, call by call: what was carried is seen, what was not is not, and every object is its own."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.kernel import libbpf
from enforcer.taps.bcc import found as bcc_found
from enforcer.taps.bcc import headers as bcc_headers
from enforcer.taps.watch import Scope, TlsTaps
from escrow.events import Event, Lost, TlsClosed, TlsDirection, TlsEnd, TlsOpened, TlsSlice
from tests.bpf import openssl
from tests.bpf.openssl import End, carry, pair
from tests.bpf.taprig import Drained, tls

pytestmark = pytest.mark.bpf

NO_BCC = bcc_found()[0] is None or bcc_headers()[0] is None
ME = Scope(pids=frozenset({os.getpid()}))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return openssl.certificate(tmp_path_factory.mktemp("cert"))


@pytest.fixture(scope="module")
def tapped() -> Iterator[tuple[TlsTaps, Drained]]:
    with tls(ME) as both:
        yield both


@pytest.fixture
def drained(tapped: tuple[TlsTaps, Drained]) -> Drained:
    tapped[1].read()
    tapped[1].events.clear()
    return tapped[1]


def slices(events: list[Event], end: End | None = None, direction: TlsDirection | None = None) -> list[TlsSlice]:
    return [
        each
        for each in events
        if isinstance(each, TlsSlice) and (end is None or each.object.pointer == end.ssl) and (direction is None or each.direction is direction)
    ]


def calls(found: list[TlsSlice]) -> list[bytes]:
    """The bytes of each call, in order; each whole."""
    whole: dict[int, bytes] = {}
    for each in found:
        assert each.offset == len(whole.get(each.sequence, b"")) and each.missing == 0
        whole[each.sequence] = whole.get(each.sequence, b"") + each.data
    assert list(whole) == list(range(len(whole)))
    for each in found:
        assert each.total == len(whole[each.sequence])
    return list(whole.values())


@pytest.mark.parametrize("size", [1, 128, 129, 512, 513, 4095, 4096, 4097, 8192, 16383, 16384, 16385, 65536, 1 << 20])
@pytest.mark.parametrize("extended", [False, True], ids=["plain", "_ex"])
def test_a_call_of_any_size_is_whole(files: tuple[Path, Path], drained: Drained, size: int, extended: bool) -> None:
    client, server = pair(*files)
    data = os.urandom(size)
    assert (client.write_ex if extended else client.write)(data) == size
    carry(client, server)
    got = b""
    while piece := (server.read_ex if extended else server.read)(1 << 20):
        got += piece
    assert got == data
    events = drained.read()
    assert calls(slices(events, client, TlsDirection.WRITE)) == [data]
    assert b"".join(calls(slices(events, server, TlsDirection.READ))) == data
    assert all(each.confirmed and each.thread == threading.get_native_id() for each in slices(events))
    client.free()
    server.free()


def test_a_call_of_nothing_is_no_event(files: tuple[Path, Path], drained: Drained) -> None:
    client, server = pair(*files)
    client.write_ex(b"")
    client.write(b"one")
    assert calls(slices(drained.read(), client)) == [b"one"]
    client.free()
    server.free()


def test_a_read_that_has_to_wait_is_no_event_and_its_retry_is_one(files: tuple[Path, Path], drained: Drained) -> None:
    client, server = pair(*files)
    assert server.read() is None  # WANT_READ
    assert server.read_ex() is None
    client.write(b"at last")
    carry(client, server)
    assert server.read_ex() == b"at last"
    assert calls(slices(drained.read(), server)) == [b"at last"]
    client.free()
    server.free()


def test_a_write_before_the_handshake_is_no_event_and_its_retry_is_one(files: tuple[Path, Path], drained: Drained) -> None:
    client, server = End(openssl.Context(), False), End(openssl.Context(*files), True)
    for _ in range(3):
        client.write(b"early")  # WANT_READ until the handshake is done: the same buffer each time
        carry(client, server)
        server.handshake()
        carry(server, client)
    assert calls(slices(drained.read(), client))[:1] == [b"early"]
    assert len(calls(slices(drained.read(), client))) < 3
    client.free()
    server.free()


def test_a_write_that_waits_for_room_is_one_call_however_often_it_is_repeated(files: tuple[Path, Path], drained: Drained) -> None:
    client, server = pair(*files)
    client.take()
    empty = openssl.narrow(client, 4096)
    data, tries = os.urandom(40_000), 0
    while client.write(data) != len(data):  # WANT_WRITE: the same buffer again
        tries += 1
        server.give(empty())
    assert tries > 3
    server.give(empty())
    client.write(b"next")
    assert calls(slices(drained.read(), client)) == [data, b"next"]
    client.free()
    server.free()


def test_peeking_is_not_reading(files: tuple[Path, Path], drained: Drained) -> None:
    client, server = pair(*files)
    client.write(b"looked at")
    carry(client, server)
    assert server.peek() == b"looked at"
    assert slices(drained.read(), server) == []
    assert server.read(4) == b"look"
    assert server.read() == b"ed at"
    assert calls(slices(drained.read(), server)) == [b"look", b"ed at"]
    client.free()
    server.free()


def test_one_thread_alternating_two_objects_mixes_nothing(files: tuple[Path, Path], drained: Drained) -> None:
    (one, one_server), (two, two_server) = pair(*files), pair(*files)
    for number in range(50):
        one.write(b"one %d" % number)
        two.write(b"two %d" % number)
        carry(one, one_server)
        carry(two, two_server)
        one_server.read()
        two_server.read()
    events = drained.read()
    for word, client, server in ((b"one", one, one_server), (b"two", two, two_server)):
        sent = [word + b" %d" % number for number in range(50)]
        assert calls(slices(events, client)) == sent
        assert calls(slices(events, server)) == sent
    for end in (one, one_server, two, two_server):
        end.free()


def test_one_object_used_by_several_threads_keeps_its_order(files: tuple[Path, Path], drained: Drained) -> None:
    client, server = pair(*files)
    lock, sent = threading.Lock(), list[bytes]()

    def write(name: int) -> None:
        for number in range(100):
            with lock:
                sent.append(b"%d of thread %d " % (number, name) * 20)
                client.write(sent[-1])

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    found = slices(drained.read(), client, TlsDirection.WRITE)
    assert calls(sorted(found, key=lambda each: each.sequence)) == sent
    assert len({each.thread for each in found}) == 4
    client.free()
    server.free()


def test_a_pointer_used_again_is_another_object(files: tuple[Path, Path], drained: Drained) -> None:
    pointers, numbers = set(), set()
    for _ in range(20):
        client, server = pair(*files)
        client.write(b"hello")
        pointers.add(client.ssl)
        client.shutdown()
        client.free()
        server.free()
    events = drained.read()
    for each in slices(events):
        numbers.add((each.object.pointer, each.object.number))
        assert each.sequence == 0
    assert len(numbers) == 20
    assert len(pointers) < 20  # some pointer was used again, or this test shows nothing
    opened = [each for each in events if isinstance(each, TlsOpened)]
    assert len(opened) == 40 and all(each.from_start for each in opened)
    ends = [each.how for each in events if isinstance(each, TlsClosed)]
    assert (ends.count(TlsEnd.SHUTDOWN), ends.count(TlsEnd.FREED)) == (20, 40)


def test_an_object_older_than_the_probes_says_so(files: tuple[Path, Path]) -> None:
    client, server = pair(*files)
    with tls(ME) as (_taps, drained):
        client.write(b"in the middle")
        events = drained.read()
        (opened,) = [each for each in events if isinstance(each, TlsOpened)]
        assert not opened.from_start
        assert calls(slices(events, client)) == [b"in the middle"]
    client.free()
    server.free()


def test_every_record_lost_to_a_full_ring_is_counted_exactly(files: tuple[Path, Path]) -> None:
    with tls(ME, ring_bytes=64 << 10) as (_taps, drained):
        client, server = pair(*files)
        sizes = [1, 5000, 16384, 40000, 300] * 40
        for size in sizes:
            client.write(bytes(size))
            client.take()
        events = drained.read()
        lost = [each for each in events if isinstance(each, Lost)]
        records = sum(-(-size // 16384) for size in sizes)
        others = [each for each in events if isinstance(each, TlsOpened | TlsClosed)]
        evidence = drained.reader.counts()["tls"].captured - len(slices(events)) - len(others)
        assert {each.reason for each in lost} == {"ring full"}
        assert sum(len(each.data) for each in slices(events)) + sum(each.payload_bytes for each in lost) == pytest.approx(sum(sizes), abs=64 * 4)
        assert len(slices(events)) + sum(each.records for each in lost) == records + max(0, 8 + 2 - evidence - len(others))
        client.write(b"after")  # it goes on, and the numbers of calls show what is missing
        assert slices(drained.read(), client)[-1].sequence == len(sizes)
        client.free()
        server.free()


def test_bytes_beyond_what_one_call_is_copied_of_are_counted(files: tuple[Path, Path]) -> None:
    with tls(ME, ring_bytes=64 << 20) as (_taps, drained):
        client, server = pair(*files)
        size = (16 << 20) + 12345
        assert client.write(bytes(size)) == size
        events = drained.read()
        assert sum(len(each.data) for each in slices(events)) == 16 << 20
        assert [(each.reason, each.payload_bytes) for each in events if isinstance(each, Lost)] == [("too long", 12345)]
        assert slices(events)[-1].missing == 12345
        client.free()
        server.free()


def test_only_the_scope_is_copied(files: tuple[Path, Path]) -> None:
    with tls(Scope(pids=frozenset({1}))) as (taps, drained):
        client, server = pair(*files)
        client.write(b"not asked for")
        assert [each for each in drained.read() if not isinstance(each, Lost)] == []
        taps.restrict(Scope(netns=os.stat("/proc/self/ns/net").st_ino))
        client.write(b"my namespace")
        taps.restrict(Scope(netns=4026530000))
        client.write(b"another's namespace")
        taps.restrict(Scope(ignored=frozenset({os.getpid()})))
        client.write(b"ignored")
        assert [each.data for each in slices(drained.read(), client)] == [b"my namespace"]
        (process,) = {each.object.process for each in slices(drained.events)}
        assert (process.pid, process.netns) == (os.getpid(), os.stat("/proc/self/ns/net").st_ino)
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        assert process.start_ns // 10_000_000 == started
        client.free()
        server.free()


@pytest.mark.skipif(NO_BCC, reason="BCC or headers for it are missing (apt install python3-bpfcc linux-headers-amd64)")
def test_both_loaders_give_the_same_events(files: tuple[Path, Path]) -> None:
    def plain(events: list[Event]) -> list[Event]:
        kept: list[Event] = []
        for each in events:
            if isinstance(each, TlsSlice | TlsOpened | TlsClosed):
                kept.append(dataclasses.replace(each, time_ns=0, object=dataclasses.replace(each.object, number=0)))
        return kept

    with tls(ME, "libbpf") as (_one, first), tls(ME, "bcc") as (_other, second):
        client, server = pair(*files)
        for size in (1, 128, 129, 4096, 4097, 16384, 16385, 100_000):
            client.write(os.urandom(size))
            client.write_ex(os.urandom(size))
            carry(client, server)
            while server.read() or server.read_ex():
                pass
        server.shutdown()
        client.free()
        server.free()
        assert plain(first.read()) == plain(second.read())
        assert len(plain(first.events)) > 40


def test_a_library_loaded_later_is_found_when_it_is_mapped(files: tuple[Path, Path], tmp_path: Path) -> None:
    """A copy, so that its inode is new; the process is started before the taps, the library loaded after."""
    library = tmp_path / "libssl.so.3"
    shutil.copy("/usr/lib/x86_64-linux-gnu/libssl.so.3", library)
    program = "import ctypes, sys; input(); ctypes.CDLL(sys.argv[1]); print('mapped', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program, str(library)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as later:
        assert later.stdin is not None and later.stdout is not None
        with tls(Scope()) as (taps, _drained):
            assert all(each.path != str(library) for each in taps.targets.values())
            later.stdin.write("\n")
            later.stdin.flush()
            assert later.stdout.readline() == "mapped\n"
            followed = taps.follow()
            (fresh,) = [each for each in followed.fresh if each.path == str(library)]
            assert {"SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex"} <= set(fresh.covered)
            assert fresh.pids == {later.pid} and followed.unprobed >= 1
        later.stdin.write("\n")


def test_a_process_under_a_strict_filter_lives_through_the_probes(files: tuple[Path, Path], tapped: tuple[TlsTaps, Drained]) -> None:
    client, server = pair(*files)
    child = os.fork()
    if child == 0:
        try:
            import seccomp  # type: ignore[import-not-found, unused-ignore]

            rules = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
            for name in ("exit_group", "futex", "madvise", "munmap", "mmap", "brk", "getpid", "getrandom", "clock_gettime", "read", "close", "fstat"):
                rules.add_rule(seccomp.ALLOW, name)
            rules.load()
            client.write(b"confined")
            carry(client, server)
            os._exit(0 if server.read() == b"confined" else 2)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    client.free()
    server.free()


def test_where_returns_must_not_be_probed_writes_are_copied_at_entry_and_said_to_be(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enforcer.taps.seccomp.returns_are_safe", lambda _loaded: False)
    with tls(ME) as (taps, drained):
        client, server = pair(*files)
        client.write(b"unconfirmed")
        carry(client, server)
        server.read()
        (seen,) = slices(drained.read())
        assert (seen.data, seen.direction, seen.confirmed) == (b"unconfirmed", TlsDirection.WRITE, False)
        (target,) = [each for each in taps.targets.values() if each.path.endswith("libssl.so.3")]
        assert "SSL_read" not in target.covered and any("reads" in why for why in target.uncovered)
        client.free()
        server.free()


def test_nothing_is_left_behind_by_a_kill() -> None:
    program = (
        "from enforcer.kernel.libbpf import prog_info\nfrom enforcer.taps.watch import *\nt = TlsTaps(Scope()); t.scan()\n"
        "print(prog_info(t.loaded.programs['ssl_write_only']).id, flush=True); input()"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    loaded = int(holder.stdout.readline())
    assert libbpf.prog_info_by_id(loaded) is not None
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    end = time.monotonic() + 10
    while libbpf.prog_info_by_id(loaded) is not None:
        assert time.monotonic() < end, "the programs outlived their process"
        time.sleep(0.02)
    assert ctypes.CDLL("libssl.so.3").OPENSSL_init_ssl(0, None) == 1
