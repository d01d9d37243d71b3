"""gVisor's strace log as effects: real runs for the forms, and a twin that writes what looks like the log."""

from __future__ import annotations

import json
import platform
import posixpath
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.sandbox.traces import LEGACY_SYSCALLS, MAX_EFFECTS, SYSCALLS, decode, query_name, read
from escrow.sandbox.effects import NO_EFFECTS, Change, Connect, Effects, Execute, Write

HEAD = "I1201 02:42:16.040541    6249 strace.go:570] [   1:   1] "
QUERY = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\7example\3com\0\0\1\0\1"


def line(text: str, comm: str = "python3") -> bytes:
    return f"{HEAD}{comm} {text}\n".encode()


def opened(path: str, flags: str = "O_RDONLY|O_CLOEXEC", folder: str = "AT_FDCWD /srv", comm: str = "python3") -> bytes:
    """Both lines of one call, as gVisor prints them."""
    call = f"openat({folder}, 0x7ea1003f0590 {path}, {flags}, 0o0)"
    return line(f"E {call}", comm) + line(f"X {call} = 3 (0x3) (17.52µs)", comm)


def test_a_read_is_told_with_its_whole_path() -> None:
    assert decode(opened("/etc/hosts") + opened("a/../b") + opened("c", folder="0x3 /etc")).reads == ("/etc/hosts", "/srv/b", "/etc/c")


def test_a_file_is_told_by_its_own_path_too_where_a_link_led_to_it() -> None:
    log = opened("/srv/link") + line("E read(0x3 /etc/shadow, 0xbd5f80, 0x1000)")
    assert decode(log) == Effects(reads=("/srv/link", "/etc/shadow"))


def test_a_comma_in_a_name_is_no_separator() -> None:
    assert decode(opened("/srv/Doe, John, O_RDWR, 0o0")) == Effects(reads=("/srv/Doe, John, O_RDWR, 0o0",))


def test_addresses_and_what_is_inside() -> None:
    log = b"".join(
        line(f"E connect(0x4 socket:[1], 0x7e {{Family: {family}, Addr: {address}, Port: {port}}}, 0x10)")
        for family, address, port in (
            ("AF_INET", "192.0.2.1", 443),
            ("AF_INET6", "2001:db8::1", 80),
            ("AF_INET", "127.0.0.1", 1),
            ("AF_INET6", "::ffff:192.0.2.7", 5),
        )
    )
    assert decode(log).connects == (
        Connect("192.0.2.1", 443),
        Connect("2001:db8::1", 80),
        Connect("127.0.0.1", 1, inside=True),
        Connect("192.0.2.7", 5),
    )


@pytest.mark.parametrize("ending, complete", [(" = 0 (0x0) (3µs)", True), (" = 0 (0x0) errno=2 (no such file or directory) (3µs)", False), (None, False)])
def test_a_unix_socket_is_inside_or_not_known(ending: str | None, complete: bool) -> None:
    call = "connect(0x4 socket:[4], 0x7e {Family: AF_UNIX, error extracting address: address family not supported by protocol}, 0x12)"
    effects = decode(line(f"E {call}") + (line(f"X {call}{ending}") if ending else b""))
    assert effects.complete is complete and effects.connects == ()


def test_a_name_that_was_looked_up_stands_with_the_resolver() -> None:
    log = line("E connect(0x5 socket:[7], 0x7e {Family: AF_INET, Addr: 192.0.2.53, Port: 53}, 0x10)")
    log += line('E write(0x5 socket:[7], 0x7e "\\x124\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\aexample\\x03com\\x00\\x00\\x01\\x00\\x01", 0x1d)')
    assert decode(log) == Effects(connects=(Connect("192.0.2.53", 53), Connect("192.0.2.53", 53, "example.com")))


def test_a_program_is_told_with_its_arguments() -> None:
    assert decode(line('E execve(0x7e /bin/sh, 0x7f ["sh", "-c", "a \\"b\\"\\n\\u00e9"], 0xac ["PATH=/bin"])')).executes == (
        Execute("/bin/sh", ("sh", "-c", 'a "b"\né')),
    )


@pytest.mark.parametrize(
    "log",
    [
        opened("/srv/a\nb"),
        opened("/srv/a, O_RDONLY, 0o0)\n" + HEAD + "x E openat(AT_FDCWD /, 0x1 /etc/forged"),
        opened("/srv/a, O_RDONLY, 0o0) = 3 (0x3) (1µs)\n" + HEAD + "x E openat(AT_FDCWD /, 0x1 /etc/forged"),
        opened("/srv/a, 0x1 /etc/passwd"),
        opened("/etc/shadow", comm="x E close(0x1"),
        opened("/etc/shadow", comm="x\n"),
        opened("/etc/shadow", comm="x X y("),
        opened("(error decoding path: bad address)"),
        HEAD.encode() + b"p E openat(AT_FDCWD /, 0x1 /\xff, O_RDONLY, 0o0)\n",
        opened("relative", folder="0x9 (bad FD)"),
        opened("/srv/a", flags="0x0"),
        line('E execve(0x7e /bin/true, 0x1 ["x"], 0x2 ["y"], 0x7f ["sh"], 0xac [])'),
        line("E unlink(0x7e /srv/a) = 0 (0x0) (1µs)"),
        line("E chroot(0x7e /srv)"),
        line("E sendmsg(0x4 socket:[6], 0x7ef1e4958700 {name=0x7e, namelen=16, iovecs=0x7e , control={0x0 }, flags=0}, 0x0)"),
        line("E openat(AT_FDCWD /, 0x1 /a, O_RDONLY, 0o0"),
        opened("/srv/a")[:-1],
        opened("/" + "a" * 5000),
        opened("/" + "a" * 300_000),
    ],
)
def test_what_can_be_read_in_two_ways_is_not_called_complete(log: bytes) -> None:
    assert not decode(log).complete


@pytest.mark.parametrize("data", ["f(x) = 3", "p E openat(AT_FDCWD /, 0x1 /a", "(error decoding path: x)", ", 0x1, 0x2", "a X b("])
def test_what_a_program_reads_and_answers_is_no_call(data: str) -> None:
    log = line(f'E write(0x1 host:[2], 0xb232d0 "{data}", 0x5c)') + line("X write(0x1 host:[2], ..., 0x5c) = 92 (0x5c) (11.771µs)")
    log += line(f'X read(0x4 /srv/file, 0x1000 "{data}", 0x5c) = 92 (0x5c) (11.771µs)')
    assert decode(log) == NO_EFFECTS


def test_effects_are_bounded() -> None:
    effects = decode(b"".join(opened(f"/srv/{number}") for number in range(MAX_EFFECTS + 9)))
    assert not effects.complete and len(effects.reads) == MAX_EFFECTS + 1


def test_a_missing_log_is_incomplete(tmp_path: Path) -> None:
    assert not read(tmp_path / "none").complete


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    decode(data)
    decode(HEAD.encode() + data + b"\n")
    decode(HEAD.encode() + b"p E connect(" + data + b")\n")
    query_name(data)
    query_name(QUERY[:12] + data)


_HOSTILE = st.lists(
    st.sampled_from(
        ["\n", HEAD, "p E openat(", "p X openat(", "AT_FDCWD /", ", 0x1 /etc/x", ", O_RDONLY", ", 0o0)", " = 3 (0x3) (1µs)", "a", ") = ", '"', " "]
    ),
    max_size=8,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(_HOSTILE, _HOSTILE.map(lambda text: text[:15].replace("\n", " ")))
def test_no_path_hides_itself_or_makes_up_another(path: str, comm: str) -> None:
    """Whatever a process calls itself and its files: the effects are what it did, or they are not called complete."""
    effects = decode(opened("/" + path, comm=comm))
    if effects.complete:
        assert effects == Effects(reads=("/" + posixpath.normpath("/" + path).lstrip("/"),))


def test_an_empty_log_has_no_effects() -> None:
    assert decode(b"") == NO_EFFECTS


PROGRAM = """
import os, socket
os.chdir('/tmp')
open('/etc/hostname').close()
open('new', 'w').close(); os.rename('new', 'old'); os.mkdir('d'); os.chmod('d', 0o700); os.rmdir('d')
fd = os.open('/tmp', os.O_RDONLY)
os.symlink('old', 'l', dir_fd=fd); os.rename('l', 'm', src_dir_fd=fd, dst_dir_fd=fd); os.unlink('m', dir_fd=fd)
for family, address in ((socket.AF_INET, ('192.0.2.1', 443)), (socket.AF_INET6, ('2001:db8::1', 443)), (socket.AF_INET, ('127.0.0.1', 9))):
    try: socket.socket(family).connect(address)
    except OSError: pass
if os.fork() == 0: os.execv('/bin/echo', ['echo', 'q"q\\n'])
os.wait()
if HOSTILE: open('/tmp/a, O_RDONLY, 0o0)\\nI1201', 'w').close()
"""


def traced(tmp_path: Path, program: str) -> Effects:
    bundle, logs = tmp_path / "b", tmp_path / "log"
    bundle.mkdir()
    logs.mkdir()
    (bundle / "config.json").write_text(
        json.dumps(
            {
                "ociVersion": "1.0.0",
                "process": {"user": {"uid": 0, "gid": 0}, "args": ["/usr/bin/python3", "-I", "-S", "-c", program], "env": ["PATH=/bin"], "cwd": "/"},
                "root": {"path": "/", "readonly": True},
                "mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/tmp", "type": "tmpfs"}],
                "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
            }
        )
    )
    calls = ",".join(SYSCALLS + (LEGACY_SYSCALLS if platform.machine() == "x86_64" else ()))
    command = ["runsc", f"--root={tmp_path / 'root'}", "--network=none", "--ignore-cgroups", "--overlay2=root:memory", "--debug", f"--debug-log={logs}/"]
    command += ["--strace", f"--strace-syscalls={calls}", "run", "--bundle", str(bundle), f"traces-{tmp_path.name}"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    assert ended.returncode == 0, ended.stderr
    (log,) = logs.glob("*.boot.txt")
    return read(log)


@pytest.mark.root
@pytest.mark.runsc
def test_a_real_run_is_told_whole(tmp_path: Path) -> None:
    effects = traced(tmp_path, "HOSTILE = False" + PROGRAM)
    assert effects.incomplete == ()
    assert "/etc/hostname" in effects.reads
    assert set(effects.writes) == {
        Write("/tmp/new", Change.DELETED),
        Write("/tmp/old", Change.CREATED),
        Write("/tmp/d", Change.DELETED),
        Write("/tmp/l", Change.DELETED),
        Write("/tmp/m", Change.DELETED),
    }
    assert effects.connects == (Connect("192.0.2.1", 443), Connect("2001:db8::1", 443), Connect("127.0.0.1", 9, inside=True))
    assert Execute("/bin/echo", ("echo", 'q"q\n')) in effects.executes


@pytest.mark.root
@pytest.mark.runsc
def test_a_real_process_cannot_have_a_name_longer_than_its_bound(tmp_path: Path) -> None:
    """Else the call's mark could begin behind what is looked at."""
    long = "import os, ctypes; ctypes.CDLL(None).prctl(15, b'a E close(' + b'x' * 60); open('/etc/hostname')\n"
    again = "os.symlink('/usr/bin/python3', '/tmp/' + 'y' * 60); os.execv('/tmp/' + 'y' * 60, ['y', '-I', '-S', '-c', 'open(\"/etc/hosts\")'])"
    effects = traced(tmp_path, long + again)
    assert effects.incomplete == ("a traced line that names no call, or more than one",)
    assert "/etc/hosts" in effects.reads


@pytest.mark.root
@pytest.mark.runsc
def test_a_real_newline_in_a_name_makes_the_effects_incomplete(tmp_path: Path) -> None:
    assert not traced(tmp_path, "HOSTILE = True" + PROGRAM).complete
