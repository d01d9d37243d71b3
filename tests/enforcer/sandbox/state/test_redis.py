"""A real Redis server's copy in a real server of the twin's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.sandbox.state.freezing import discard, freeze
from escrow.sandbox.settings import Redis

pytestmark = [pytest.mark.root, pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")]


def said(socket: Path, *words: str) -> str:
    return subprocess.run(["redis-cli", "-s", str(socket), *words], capture_output=True, text=True, timeout=10).stdout.strip()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Path]:
    listens = tmp_path / "live.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(listens), "--dir", str(tmp_path), "--save", "", "--requirepass", "se cret"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any("accept connections" in line for line in process.stdout)
            yield listens
        finally:
            process.kill()


def test_the_copy_has_what_was_there_and_goes_its_own_way(live: Path, tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o711)
    password = ("-a", "se cret", "--no-auth-warning")
    said(live, *password, "set", "key", "before")
    frozen = freeze(
        (Redis(kind="redis", url=f"unix://:se%20cret@{live}", socket="/run/redis/r.sock"),), Path("/tmp") / f"hf-{os.getpid()}", time.monotonic() + 10
    )
    try:
        assert frozen.why == ""
        (mount,) = frozen.mounts
        own = mount.lower / "r.sock"
        assert mount.at == "/run/redis" and not mount.overlaid
        said(live, *password, "set", "key", "after")
        assert said(own, "get", "key") == "before"
        assert said(own, "set", "key", "twin") == "OK" and said(live, *password, "get", "key") == "after"
        (process,) = frozen.processes
        status = Path(f"/proc/{process}/status").read_text()
        assert "Uid:\t65534\t65534" in status and "NoNewPrivs:\t1" in status and "CapBnd:\t0000000000000000" in status
        assert Path(f"/proc/{process}/net/dev").read_text().count(":") == 1  # lo alone
    finally:
        discard(frozen)
    assert not frozen.folder.exists() and not Path(f"/proc/{process}").exists()


def test_a_wrong_password_and_a_server_that_is_gone_are_said(live: Path, tmp_path: Path) -> None:
    wrong = freeze((Redis(kind="redis", url=f"unix://:no@{live}", socket="/run/r.sock"),), tmp_path / "f", time.monotonic() + 5)
    assert wrong.why == "Redis refused the password"
    gone = freeze((Redis(kind="redis", url=f"unix://{tmp_path}/none", socket="/run/r.sock"),), tmp_path / "f", time.monotonic() + 5)
    assert gone.why == "Redis could not be copied: No such file or directory"
