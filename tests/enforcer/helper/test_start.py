"""The life cycle of `holdfast start`, with a real kernel, real processes and signals, and a small daemon."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from enforcer.helper import lock
from enforcer.helper.traces import StillRunning, read, remove_traces
from tests.enforcer.helper.conftest import Start
from tests.enforcer.helper.world import Instance, Net, Server, status, until

pytestmark = pytest.mark.bpf
PORT = 7700


def pins(instance: Instance) -> Path:
    return Path(f"/sys/fs/bpf/holdfast/{instance.ready['netns_inode']}-{instance.port}")


def test_the_ready_line_says_what_lives_where_and_steering_is_live_by_then(guarded: Net, server: Server, start: Start) -> None:
    began = time.monotonic()
    instance = start()
    took_s = time.monotonic() - began
    assert instance.ready["event"] == "ready" and instance.ready["mode"] == "enforce"
    assert (instance.ready["port"], instance.ready["pid"], instance.ready["daemon_pid"]) == (PORT, instance.pid, instance.daemon())
    assert instance.ready["control"] == str(instance.runtime_dir / "control.sock")
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("gate ")
    assert took_s < 5, "far beyond the 1.5 s it takes on a machine that is not busy"


def test_sigterm_ends_it_with_0_and_leaves_no_trace(guarded: Net, server: Server, start: Start) -> None:
    instance = start()
    until(lambda: len(instance.workers()) == 2)
    family = [instance.daemon(), *instance.workers()]
    place = pins(instance)
    assert place.is_dir() and place.stat().st_mode & 0o777 == 0o700
    assert instance.end() == 0
    assert not place.exists()
    assert not instance.runtime_dir.exists()
    assert not lock.path(guarded.inode, PORT).exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)
    attached = subprocess.run(["ip", "netns", "exec", guarded.name, "bpftool", "-j", "net"], capture_output=True, text=True, check=True)
    assert "sk_lookup" not in attached.stdout
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("server "), "the server answers by itself again"


def test_sigint_at_the_terminal_is_the_same_order(guarded: Net, server: Server, start: Start) -> None:
    assert start().end(signal.SIGINT) == 0


def test_the_daemon_may_ask_for_the_stop(guarded: Net, server: Server, start: Start) -> None:
    instance = start()
    instance.control("stop")
    assert instance.process.wait(10) == 0
    assert not pins(instance).exists()


def test_the_daemon_killed_refuses_until_another_one_accepts(guarded: Net, server: Server, start: Start) -> None:
    instance = start()
    first = instance.daemon()
    os.kill(first, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{first}").exists())
    assert guarded.refuses("127.0.0.1", PORT) and guarded.refuses("::1", PORT)
    assert server.accepted == 0
    until(lambda: not guarded.refuses("127.0.0.1", PORT))
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("gate ")
    assert instance.daemon() not in (0, first)
    assert instance.facts()[0] == "enforcing", "the new daemon is told"


def test_the_helper_killed_takes_everybody_with_it_and_the_port_stays_refused(guarded: Net, server: Server, start: Start) -> None:
    instance = start()
    until(lambda: len(instance.workers()) == 2)
    family = [instance.daemon(), *instance.workers()]
    assert instance.end(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))
    assert guarded.refuses("127.0.0.1", PORT)

    again = start()
    assert "taken over" in again.errors()
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("gate ")
    assert again.end() == 0
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("server ")


def test_a_restart_is_refused_throughout_and_never_unguarded(guarded: Net, server: Server, start: Start) -> None:
    start().end(signal.SIGKILL)
    again = start(wait=False)
    answers: set[str] = set()
    while "gate" not in answers:
        try:
            answers.add(guarded.ask("127.0.0.1", PORT)[0].split()[0])
        except OSError:
            answers.add("refused")
    assert answers == {"refused", "gate"}
    again.wait_ready()


def test_a_failed_restart_leaves_the_port_refused(guarded: Net, server: Server, start: Start) -> None:
    dead = start()
    dead.end(signal.SIGKILL)
    broken = start(wait=False, extra=("--broken-daemon",))
    assert broken.process.wait(10) == 1
    assert "this daemon cannot be prepared" in broken.errors()
    assert guarded.refuses("127.0.0.1", PORT)
    assert read(dead.runtime_dir) is not None, "so that `holdfast stop` finds the pins"


def test_a_first_start_that_fails_leaves_nothing(guarded: Net, server: Server, start: Start) -> None:
    broken = start(wait=False, extra=("--broken-daemon",))
    assert broken.process.wait(10) == 1
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("server ")
    assert not broken.runtime_dir.exists()


def test_what_a_killed_instance_left_can_be_removed(guarded: Net, server: Server, start: Start) -> None:
    instance = start()
    with pytest.raises(StillRunning) as running:
        remove_traces(instance.runtime_dir)
    assert running.value.pid == instance.pid
    instance.end(signal.SIGKILL)
    assert str(pins(instance)) in remove_traces(instance.runtime_dir)
    assert not pins(instance).exists() and not instance.runtime_dir.exists()
    until(lambda: not guarded.refuses("127.0.0.1", PORT))
    assert remove_traces(instance.runtime_dir) == []


def test_fail_open_is_the_only_way_to_have_it_otherwise(guarded: Net, server: Server, start: Start) -> None:
    instance = start(policy='fail = "open"')
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("gate ")
    first = instance.daemon()
    os.kill(first, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{first}").exists())
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("server ")
    until(lambda: instance.daemon() not in (0, first))
    instance.end(signal.SIGKILL)
    until(lambda: not guarded.refuses("127.0.0.1", PORT))
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("server ")


def test_a_second_instance_for_the_same_port_names_the_first(guarded: Net, server: Server, start: Start) -> None:
    first = start()
    second = start(folder="two", wait=False)
    assert second.process.wait(10) == 1
    assert f"already guarded by process {first.pid}" in second.errors()
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("gate ")


def test_two_instances_for_two_ports_run_side_by_side(guarded: Net, server: Server, start: Start) -> None:
    other = Server(guarded, 7701)
    try:
        one, two = start(), start(port=7701, folder="two")
        assert guarded.ask("127.0.0.1", PORT)[0].startswith("gate ")
        assert guarded.ask("127.0.0.1", 7701)[0].startswith("gate ")
        until(lambda: len(one.workers()) == 2)
        assert not any("not enforcing" in fact for fact in one.facts() + two.facts())
        assert two.end() == 0
        assert guarded.ask("127.0.0.1", 7701)[0].startswith("server ")
        assert guarded.ask("127.0.0.1", PORT)[0].startswith("gate ")
    finally:
        other.close()


def test_a_worker_that_dies_is_replaced_and_the_daemon_given_the_new_one(guarded: Net, server: Server, start: Start) -> None:
    instance = start()
    until(lambda: len(instance.workers()) == 2)
    os.kill(instance.workers()[0], signal.SIGKILL)
    until(lambda: "worker 3 started" in instance.facts())
    assert any(fact.endswith("ended") for fact in instance.facts())


def test_connections_older_than_the_start_are_ended(guarded: Net, server: Server, start: Start) -> None:
    old = [guarded.connect(host, PORT) for host in ("127.0.0.1", "::1")]
    for connected in old:
        connected.sendall(b"stay\n")
        assert connected.recv(100) == b"stay\n"
    silent = guarded.connect("127.0.0.1", PORT)
    instance = start()
    for connected in [*old, silent]:
        connected.settimeout(5)
        with pytest.raises(ConnectionResetError):
            connected.recv(1)
        connected.close()
    assert "3 older connections ended" in instance.errors()


def test_a_connection_made_while_older_ones_are_ended_survives(guarded: Net, server: Server, start: Start) -> None:
    """Steered connections look like old ones in sock_diag; many old ones make the sweep last."""
    old = [guarded.connect("127.0.0.1", PORT) for _ in range(300)]
    instance = start(wait=False)
    kept: list[socket.socket] = []
    while len(kept) < 20:
        connected = guarded.connect("127.0.0.1", PORT)
        try:
            connected.sendall(b"stay\n")
            if connected.recv(5) == b"gate ":
                kept.append(connected)
                continue
        except ConnectionError:
            pass
        connected.close()
    instance.wait_ready()
    for connected in kept:
        connected.setblocking(False)
        received = b"?"
        while received:
            try:
                received = connected.recv(4096)
                assert received, "the gate's client was cut off"
            except BlockingIOError:
                break
    for connected in [*old, *kept]:
        connected.close()


def test_a_namespace_given_by_process_is_guarded_until_that_process_ends(guarded: Net, server: Server, start: Start) -> None:
    holder = subprocess.Popen(["ip", "netns", "exec", guarded.name, "sleep", "1000"])
    try:
        until(lambda: os.stat(f"/proc/{holder.pid}/ns/net").st_ino == guarded.inode)
        instance = start(netns=str(holder.pid))
        assert guarded.ask("127.0.0.1", PORT)[0].startswith("gate ")
    finally:
        holder.kill()
        holder.wait()
    until(lambda: any("has ended" in fact for fact in instance.facts()), 1.0)


def test_a_namespace_that_is_removed_is_noticed_within_a_second(guarded: Net, server: Server, start: Start) -> None:
    instance = start()
    subprocess.run(["ip", "netns", "del", guarded.name], check=True)
    until(lambda: any("was removed" in fact for fact in instance.facts()), 1.0)
    subprocess.run(["ip", "netns", "add", guarded.name], check=True)
    until(lambda: any("was replaced by another" in fact for fact in instance.facts()), 1.0)
    assert instance.end() == 0
    assert not pins(instance).exists()


def test_a_dead_link_of_a_gone_namespace_is_replaced(guarded: Net, server: Server, start: Start) -> None:
    instance = start()
    assert instance.ready["netns_inode"] == guarded.inode
    link = pins(instance) / "link"
    subprocess.run(["bpftool", "link", "detach", "pinned", str(link)], check=True)
    instance.end(signal.SIGKILL)
    again = start()
    assert "attached" in again.errors()
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("gate ")


def test_a_link_that_somebody_detaches_is_noticed_within_a_second(guarded: Net, server: Server, start: Start) -> None:
    instance = start()
    subprocess.run(["bpftool", "link", "detach", "pinned", str(pins(instance) / "link")], check=True)
    until(lambda: any("somebody detached" in fact for fact in instance.facts()), 1.0)


def test_without_root_the_error_points_to_the_proxy(tmp_path: Path) -> None:
    code = (
        "import os; os.setresuid(65534, 65534, 65534)\n"
        "from pathlib import Path\nfrom enforcer.helper.start import StartOptions, start\nfrom escrow.policy import Policy\n"
        "raise SystemExit(start(StartOptions(1, None, Policy(), None, Path('/nonexistent/s'), Path('/nonexistent/r'))))"
    )
    # Imported as root, started as nobody: the installation may be root's alone.
    code = "import enforcer.helper.start, escrow.policy\n" + code
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "must run as root" in ended.stderr and "holdfast proxy" in ended.stderr


def test_without_capabilities_the_error_names_them(tmp_path: Path) -> None:
    code = (
        "from enforcer.privilege import libc\nlibc.capset(0, 0, 0)\n"
        "from pathlib import Path\nfrom enforcer.helper.start import StartOptions, start\nfrom escrow.policy import Policy\n"
        f"raise SystemExit(start(StartOptions(1, None, Policy(), None, Path({str(tmp_path)!r}), Path({str(tmp_path)!r}))))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "CAP_BPF" in ended.stderr and "CAP_NET_ADMIN" in ended.stderr and "holdfast proxy" in ended.stderr


@pytest.mark.parametrize(
    ("netns", "said"), [("/nonexistent/ns", "no network namespace at"), ("/etc/passwd", "is no network namespace"), ("99999999", "no process")]
)
def test_a_namespace_that_is_none_is_said(start: Start, netns: str, said: str) -> None:
    instance = start(netns=netns, wait=False)
    assert instance.process.wait(10) == 1
    assert said in instance.errors()


def test_a_policy_that_names_a_file_that_is_not_there(guarded: Net, start: Start) -> None:
    instance = start(policy='[tls]\ncert = "/nonexistent/cert.pem"\nkey = "/nonexistent/key.pem"', wait=False)
    assert instance.process.wait(10) == 1
    assert "/nonexistent/cert.pem" in instance.errors()


def test_a_state_folder_of_somebody_else_is_not_taken(guarded: Net, start: Start, tmp_path: Path) -> None:
    state = tmp_path / "one" / "state"
    state.mkdir(parents=True)
    (state / "theirs").write_text("x")
    instance = start(wait=False)
    assert instance.process.wait(10) == 1
    assert "belongs to user 0" in instance.errors()


def test_no_server_yet_is_a_warning(guarded: Net, start: Start) -> None:
    instance = start()
    assert "nothing listens on port 7700 yet" in instance.errors()


def test_systemd_is_told(guarded: Net, server: Server, start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        instance = start(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert listener.recv(100) == b"READY=1"
        instance.end()
        assert listener.recv(100) == b"STOPPING=1"


EVERYBODY: dict[str, object] = {"policy": '[jury]\nurl = "http://127.0.0.1:9/v1"\nmodel = "m"', "extra": ("--mcp-listen", "127.0.0.1:0")}
"""A start with each kind of child there is."""


def beside(instance: Instance) -> list[int]:
    """The processes beside the daemon, once each of them is confined."""
    found = [*instance.workers(), *instance.children("holdfast-window"), *instance.children("holdfast-jury")]
    return found if len(found) == 4 and all(status(pid)["Seccomp"] == "2" for pid in found) else []


def test_no_process_keeps_more_rights_than_it_needs(guarded: Net, server: Server, start: Start) -> None:
    instance = start(**EVERYBODY)
    others = until(lambda: beside(instance))
    helper = status(instance.pid)
    # NET_ADMIN, SYS_ADMIN, SETUID, SETGID, SETPCAP, KILL, DAC_READ_SEARCH (enforcer/privilege/capabilities.py)
    kept = 1 << 12 | 1 << 21 | 1 << 7 | 1 << 6 | 1 << 8 | 1 << 5 | 1 << 2
    assert {int(helper[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {kept}
    assert (int(helper["CapInh"], 16), int(helper["CapAmb"], 16), helper["NoNewPrivs"]) == (0, 0, "1")
    users = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_name != "holdfast"}
    seen = set()
    for pid in [instance.daemon(), *others]:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found = {key: value.strip() for key, _, value in (line.partition(":") for line in (task / "status").read_text().splitlines())}
            assert [int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 5
            assert (found["NoNewPrivs"], found["Seccomp"], found["Groups"]) == ("1", "2", "")
            uids = set(found["Uid"].split())
            assert len(uids) == 1 and not {int(uid) for uid in uids} & {0, *users}
            seen |= uids
    assert len(seen) == 4, "daemon, workers, window and jury are four users"


def holds(pid: int, secret: bytes) -> bool:
    """Whether these bytes stand anywhere in a process's own memory."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_, inode = line.split()[:5]
            if rights.startswith("rw") and inode == "0":
                begin, end = (int(part, 16) for part in span.split("-"))
                memory.seek(begin)
                if secret in memory.read(end - begin):
                    return True
    return False


def test_the_servers_key_is_in_the_daemons_memory_and_in_nobody_elses(guarded: Net, server: Server, start: Start, tmp_path: Path) -> None:
    secret = secrets.token_hex(32)
    for name in ("cert", "key"):
        (tmp_path / name).write_text(f"-----BEGIN-----\n{secret}\n")
    tls = f'[tls]\ncert = "{tmp_path}/cert"\nkey = "{tmp_path}/key"\n'
    instance = start(policy=tls + str(EVERYBODY["policy"]), extra=EVERYBODY["extra"])
    others = until(lambda: beside(instance))
    assert holds(instance.daemon(), secret.encode()), "it can be seen where it is"
    assert not [pid for pid in (instance.pid, *others) if holds(pid, secret.encode())]


def test_each_child_that_dies_is_replaced_and_the_daemon_given_the_new_one(guarded: Net, server: Server, start: Start) -> None:
    instance = start(**EVERYBODY)
    until(lambda: beside(instance))
    for kind in ("window", "jury"):
        assert f"{kind} 1 started" in instance.facts()
        os.kill(instance.children(f"holdfast-{kind}")[0], signal.SIGKILL)
    until(lambda: {"window 2 started", "jury 2 started"} <= set(instance.facts()))
    assert {"window 1 ended", "jury 1 ended"} <= set(instance.facts())
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("gate "), "the gate goes on without them"


def test_the_daemon_killed_takes_the_processes_beside_it_along_and_each_comes_again(guarded: Net, server: Server, start: Start) -> None:
    instance = start(**EVERYBODY)
    before = until(lambda: beside(instance))
    os.kill(instance.daemon(), signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before))
    until(lambda: beside(instance))
    assert instance.ready["window"] == f"http://127.0.0.1:{listening(instance)}/mcp", "at the same address"


def listening(instance: Instance) -> int:
    """The port of the window's socket, which the helper keeps."""
    inodes = {os.readlink(entry).partition("[")[2].rstrip("]") for entry in Path(f"/proc/{instance.pid}/fd").iterdir() if "socket:" in os.readlink(entry)}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            return int(fields[1].partition(":")[2], 16)
    return 0


def test_a_window_that_was_asked_for_and_cannot_be_is_an_error(guarded: Net, server: Server, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        instance = start(wait=False, extra=("--mcp-listen", f"127.0.0.1:{taken.getsockname()[1]}"))
        assert instance.process.wait(10) == 1
    assert "the window cannot listen on" in instance.errors() and "in use" in instance.errors()
    assert guarded.ask("127.0.0.1", PORT)[0].startswith("server "), "nothing was attached"


def test_without_a_window_the_ready_line_says_why(guarded: Net, server: Server, start: Start) -> None:
    ready = start().ready
    assert ready["window"] is None and "turned off" in str(ready["window_why"])


def test_what_the_daemon_may_not_do_fails(guarded: Net, server: Server, start: Start) -> None:
    tried = start().control("try")["try"]
    assert isinstance(tried, dict)
    assert tried.pop("write tmp").startswith("worked") and tried.pop("write state").startswith("worked")
    root = tried.pop("list root")
    assert "'state'" in root and "'proc'" not in root and "'root'" not in root and "'home'" not in root
    assert not [what for what, how in tried.items() if how.startswith("worked")]


@pytest.mark.parametrize("kind", ["worker", "window"])
def test_what_a_child_may_not_do_fails(guarded: Net, server: Server, start: Start, kind: str) -> None:
    instance = start(**EVERYBODY)
    until(lambda: beside(instance))
    answer = instance.control(kind)[kind]
    assert isinstance(answer, str)
    assert set(json.loads(answer).values()) == {"PermissionError"}


def test_the_daemon_has_only_its_own_descriptors(guarded: Net, server: Server, start: Start) -> None:
    """Above all no map, program or link, no namespace, and no lock."""
    instance = start(**EVERYBODY)
    for pid in (instance.daemon(), *until(lambda: beside(instance))):
        targets = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [target for target in targets if "bpf" in target or "net:" in target or "locks" in target or "pidfd" in target]


def test_the_helper_keeps_no_copy_of_the_gates_sockets(guarded: Net, server: Server, start: Start) -> None:
    instance = start()

    def sockets(pid: int) -> set[str]:
        return {target for target in (os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()) if target.startswith("socket:")}

    until(lambda: "worker 2 started" in instance.facts())
    # Two are shared: the sock_diag sockets, kept for the next daemon. A worker's is, until it has been passed on.
    until(lambda: len(sockets(instance.pid) & sockets(instance.daemon())) == 2)


def test_a_server_comes_back_on_its_port_while_clients_are_connected_to_the_gate(guarded: Net, server: Server, start: Start) -> None:
    start()
    with guarded.connect("127.0.0.1", PORT) as client:
        client.sendall(b"stay\n")
        assert client.recv(100).startswith(b"gate ")
        server.close()
        again = Server(guarded, PORT)  # raises "address in use" where the gate's connections keep the port
        try:
            assert guarded.ask("127.0.0.1", PORT)[0].startswith("gate ")
            assert again.accepted == 1
        finally:
            again.close()
