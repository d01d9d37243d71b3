"""The store: private, sealed, one at a time; what is shredded is gone, what was put survives a kill."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from enforcer.store import Store, StoreError
from escrow.call import Kind, Transport
from escrow.item import Item, Payload, State

PAYLOAD = Payload(b'{"jsonrpc":"2.0","id":1,"result":"xylophone-quartz"}', (("mcp-session-id", "s"),))


def item(number: int = 1, **changes: object) -> Item:
    made = Item(
        id=f"hf-{number:010x}", state=State.HELD, kind=Kind.TOOL_CALL, tool="read", method="tools/call", server="s", principal="p", session=None,
        transport=Transport.SESSION, call_id=1, args_sha256="a" * 64, result_sha256="b" * 64, size_bytes=1, policy_version="v", held_at=float(number),
        deadline=2.0, verdicts=(),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state")
    yield store
    store.close()


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_what_is_put_is_there_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    for number, call_id in enumerate((0, "0", None), 1):
        store.put(item(number, call_id=call_id), PAYLOAD)
        assert store.get(item(number).id) == item(number, call_id=call_id)
    store.close()
    again = Store(tmp_path / "state")
    assert again.payload(item().id) == PAYLOAD and again.get("hf-ffffffffff") is None and again.payload("hf-ffffffffff") is None
    again.close()


def test_items_are_listed_by_state_oldest_first(store: Store) -> None:
    for number in (3, 1, 2):
        store.put(item(number), PAYLOAD)
    store.update(item(2, state=State.DENIED))
    assert [found.held_at for found in store.list_items()] == [1.0, 2.0, 3.0]
    assert [found.held_at for found in store.list_items((State.HELD,), 1)] == [3.0], "the newest where not all are wanted"
    assert store.counts() == {"held": 2, "denied": 1}


def test_only_the_owner_can_look(store: Store, tmp_path: Path) -> None:
    store.put(item(), PAYLOAD)
    for path in [tmp_path / "state", *(tmp_path / "state").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path.name


def test_a_folder_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state").chmod(0o755)
    Store(tmp_path / "state").close()
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_second_holdfast_is_refused_and_says_why(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="another Holdfast"):
        Store(tmp_path / "state")
    code = "import sys, pathlib; from enforcer.store import Store; Store(pathlib.Path(sys.argv[1]))"
    other = subprocess.run([sys.executable, "-c", code, str(tmp_path / "state")], capture_output=True, text=True, check=False)
    assert other.returncode != 0 and "another Holdfast" in other.stderr


def test_payloads_never_stand_in_the_clear(store: Store, tmp_path: Path) -> None:
    store.put(item(), PAYLOAD)
    store.replace_payload(item(), replace(PAYLOAD, released=b"xylophone-quartz, less of it"))
    assert b"xylophone" not in on_disk(tmp_path / "state")
    assert store.payload(item().id) == replace(PAYLOAD, released=b"xylophone-quartz, less of it")


def test_shredding_leaves_neither_key_nor_payload_in_any_file(store: Store, tmp_path: Path) -> None:
    for number in range(1, 20):
        store.put(item(number), PAYLOAD)
    store.replace_payload(item(7), replace(PAYLOAD, released=b"x"))
    key = bytes(store._keys.execute("SELECT key FROM keys WHERE id = ?", (item(7).id,)).fetchone()[0])
    sealed = bytes(store._items.execute("SELECT sealed FROM payloads WHERE id = ?", (item(7).id,)).fetchone()[0])
    assert key in on_disk(tmp_path / "state") and sealed in on_disk(tmp_path / "state")
    store.shred(item(7, state=State.SHREDDED))
    left = on_disk(tmp_path / "state")
    assert key not in left and sealed not in left and sealed[12:44] not in left
    assert store.payload(item(7).id) is None and store.get(item(7).id) == item(7, state=State.SHREDDED)
    assert store.payload(item(8).id) == PAYLOAD, "the others stand"
    store.shred(item(7, state=State.SHREDDED))


CUT = "sealed = CAST(substr(sealed, 1, length(sealed) - 1) AS BLOB)"


@pytest.mark.parametrize("change", ["sealed = zeroblob(64)", "sealed = x''", CUT, "sealed = CAST(sealed || x'00' AS BLOB)"])
def test_a_payload_altered_on_disk_does_not_open(change: str, store: Store) -> None:
    store.put(item(), PAYLOAD)
    store._items.execute(f"UPDATE payloads SET {change}")
    with pytest.raises(StoreError, match="altered"):
        store.payload(item().id)


def test_a_payload_moved_to_another_item_does_not_open(store: Store) -> None:
    store.put(item(1), PAYLOAD)
    store.put(item(2), PAYLOAD)
    store._keys.execute("UPDATE keys SET key = (SELECT key FROM keys WHERE id = ?)", (item(1).id,))
    store._items.execute("UPDATE payloads SET sealed = (SELECT sealed FROM payloads WHERE id = ?)", (item(1).id,))
    with pytest.raises(StoreError, match="altered"):
        store.payload(item(2).id)


def test_an_item_is_put_once(store: Store) -> None:
    store.put(item(), PAYLOAD)
    with pytest.raises(StoreError):
        store.put(item(), replace(PAYLOAD, raw=b"other"))
    assert store.payload(item().id) == PAYLOAD


def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "items.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"items\.db"):
        Store(tmp_path / "state")
    shutil.rmtree(tmp_path / "state")
    Store(tmp_path / "state").close()


PUTS = """
import sys, pathlib
sys.path.insert(0, sys.argv[2])
from enforcer.store import Store
from tests.enforcer.store.test_store import PAYLOAD, item
store = Store(pathlib.Path(sys.argv[1]))
for number in range(1, 100_000):
    store.put(item(number), PAYLOAD)
    print(number, flush=True)
"""


def test_every_put_that_was_said_done_survives_kill_9(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    for round_ in range(3):
        folder = tmp_path / f"state-{round_}"
        with subprocess.Popen([sys.executable, "-c", PUTS, str(folder), root], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(10 + round_):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            said = 10 + round_ + len(process.stdout.readlines())
        store = Store(folder)
        found = store.list_items()
        assert said <= len(found) <= said + 1
        assert all(store.payload(one.id) == PAYLOAD for one in found)
        store.close()


@pytest.mark.root
def test_a_full_disk_is_an_error_and_what_was_there_stays(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True, check=False).returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    try:
        store = Store(folder / "state")
        store.put(item(1), PAYLOAD)
        with pytest.raises(StoreError, match="full"):
            for number in range(2, 500):
                store.put(item(number), Payload(os.urandom(20_000)))
        assert store.payload(item(1).id) == PAYLOAD
        kept = [one.id for one in store.list_items()]
        assert all(store.payload(one) is not None for one in kept)
        store.close()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_tools_are_trusted_offered_and_told_apart(store: Store) -> None:
    a, b, changed = ("a", "1" * 64, '{"name":"a"}'), ("b", "2" * 64, "{}"), ("a", "3" * 64, '{"name":"a","x":1}')
    assert store.trusted("s") == (frozenset(), False)
    store.trust("s", [a], "first use", 1.0, True)
    store.offer("s", [changed, b], 2.0)
    assert store.trusted("s") == (frozenset({("a", "1" * 64)}), True) and store.trusted("other") == (frozenset(), False)
    assert [(tool["name"], tool["state"]) for tool in store.tools("s")] == [("a", "changed"), ("b", "new")]
    store.trust("s", store.offered("s"), "alice", 3.0, True)
    assert [tool["state"] for tool in store.tools("s")] == ["trusted", "trusted"]


def test_a_database_locked_by_somebody_else_is_an_error_not_a_wait(store: Store, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "state" / "items.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._items.execute("PRAGMA busy_timeout = 10")
    started = time.monotonic()
    with pytest.raises(StoreError, match="locked"):
        store.put(item(), PAYLOAD)
    assert time.monotonic() - started < 2
    other.execute("ROLLBACK")
    other.close()
