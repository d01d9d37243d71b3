"""Where a call's state is copied to: memory while it is small, the disk where it is not."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from enforcer.sandbox.frozen import CannotFreeze
from enforcer.sandbox.snapshots import IN_MEMORY_BYTES, FrozenState, StateSnapshots
from escrow.sandbox.settings import SandboxSettings


def frozen(folder: Path, *, kind: str, path: Path, calls: int = 1) -> list[FrozenState]:
    settings = SandboxSettings.model_validate({"command": ["server"], "snapshot_ms": 5000, "state": [{"kind": kind, "path": str(path)}]})
    (folder / "memory").mkdir()
    snapshots = StateSnapshots(settings, folder / "memory")
    made = []
    for number in range(calls):
        (folder / f"call{number}").mkdir()
        made.append(asyncio.run(snapshots.freeze(folder / f"call{number}" / "frozen")))
    return made


def test_a_small_state_is_copied_into_memory_and_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("as it was")
    (one,) = frozen(tmp_path, kind="directory", path=tmp_path / "data")
    (layer,) = one.layers
    assert layer.lower.is_relative_to(tmp_path / "memory") and (layer.lower / "a").read_text() == "as it was"
    assert layer.upper == tmp_path / "call0" / "upper" / "0"
    one.release()
    assert list((tmp_path / "memory").iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "sqlite"])
def test_a_large_state_is_copied_to_disk_and_memory_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "data"
    if kind == "directory":
        path.mkdir()
        (path / "a").write_bytes(bytes(IN_MEMORY_BYTES + 1))
    else:
        with sqlite3.connect(path) as database:
            database.execute("create table t as select zeroblob(?) as value", (IN_MEMORY_BYTES + 1,))
    for number, one in enumerate(frozen(tmp_path, kind=kind, path=path, calls=2)):
        assert one.layers[0].lower.is_relative_to(tmp_path / f"call{number}")
    assert list((tmp_path / "memory").iterdir()) == []


def test_what_cannot_be_frozen_in_memory_or_on_disk_is_said(tmp_path: Path) -> None:
    with pytest.raises(CannotFreeze):
        frozen(tmp_path, kind="directory", path=tmp_path / "absent")
