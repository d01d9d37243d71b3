"""The keeper of the twins as a child of the helper: what it may, what it sees, and how it ends. What it does with runsc is tested elsewhere."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.enforcer.helper.conftest import Start
from tests.enforcer.helper.world import Instance, Net, Server, status, until

pytestmark = pytest.mark.bpf

# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, SYS_ADMIN, SYS_NICE, SETFCAP (enforcer/privilege/capabilities.py)
KEEPS = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 21 | 1 << 23 | 1 << 31
HELPER_KEEPS = 1 << 12 | 1 << 21 | 1 << 7 | 1 << 6 | 1 << 8 | 1 << 5 | 1 << 2


def keeper(instance: Instance) -> int:
    """The keeper, once it is confined; 0 before."""
    found = instance.children("holdfast-keeper")
    return found[0] if found and int(status(found[0])["CapPrm"], 16) == KEEPS else 0


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """A twin of a server that ends at once, and a key that is for the jury alone."""
    (tmp_path / "api.key").write_text("secret\n")
    jury = f'[jury]\nurl = "http://127.0.0.1:9/v1"\nmodel = "m"\napi_key_file = "{tmp_path}/api.key"\n'
    return f'{jury}[servers.documents.sandbox]\ncommand = ["/bin/true"]\n'


def test_the_keeper_is_root_with_what_runsc_needs_and_nothing_else(guarded: Net, server: Server, start: Start, policy: str) -> None:
    instance = start(policy=policy)
    pid = until(lambda: keeper(instance))
    for task in Path(f"/proc/{pid}/task").iterdir():
        found = {key: value.strip() for key, _, value in (line.partition(":") for line in (task / "status").read_text().splitlines())}
        assert [int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")] == [KEEPS] * 3 + [0] * 2
        assert (found["NoNewPrivs"], found["Groups"], set(found["Uid"].split())) == ("1", "", {"0"})
    helper = status(instance.pid)
    assert {int(helper[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {HELPER_KEEPS | KEEPS}


def test_without_a_twin_in_the_policy_there_is_no_keeper(guarded: Net, server: Server, start: Start) -> None:
    instance = start()
    until(instance.workers)
    assert instance.children("holdfast-keeper") == []


def test_the_keeper_sees_neither_the_store_nor_keys_nor_the_control_socket_and_has_no_network(
    guarded: Net, server: Server, start: Start, policy: str, tmp_path: Path
) -> None:
    instance = start(policy=policy)
    (instance.state_dir / "items.db").write_bytes(b"held")
    pid = until(lambda: keeper(instance))
    root = f"/proc/{pid}/root"
    assert os.listdir(f"{root}{instance.state_dir}") == ["sandbox"]
    assert os.listdir(f"{root}{instance.runtime_dir}") == []
    assert Path(f"{root}{tmp_path}/api.key").is_char_device(), "/dev/null in its place"
    assert os.readlink(f"/proc/{pid}/ns/net") not in {os.readlink(f"/proc/{process}/ns/net") for process in (instance.pid, os.getpid())}
    assert (instance.state_dir / "items.db").read_bytes() == b"held", "covered, not removed"


def test_a_keeper_that_dies_is_replaced_and_the_daemon_given_the_new_one(guarded: Net, server: Server, start: Start, policy: str) -> None:
    instance = start(policy=policy)
    first = until(lambda: keeper(instance))
    os.kill(first, signal.SIGKILL)
    until(lambda: keeper(instance) not in (0, first))
    until(lambda: "keeper 2 started" in instance.facts())
    assert [fact for fact in instance.facts() if fact.startswith("keeper")] == ["keeper 1 started", "keeper 1 ended", "keeper 2 started"]


def test_the_helper_killed_takes_the_keeper_with_it(guarded: Net, server: Server, start: Start, policy: str) -> None:
    instance = start(policy=policy)
    pid = until(lambda: keeper(instance))
    instance.end(signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_folder_of_templates_that_is_not_roots_own_is_not_taken(guarded: Net, server: Server, start: Start, policy: str, tmp_path: Path) -> None:
    """The daemon's user owns the state folder and could put one of its own there."""
    folder = tmp_path / "one" / "state"
    folder.mkdir(parents=True)
    (folder / "sandbox").mkdir()
    os.chown(folder, 61931, 61931)
    os.chown(folder / "sandbox", 61931, 61931)
    instance = start(policy=policy)
    until(lambda: "keeper 1 ended" in instance.facts())
    assert "is not a folder that root alone can write" in instance.errors()
