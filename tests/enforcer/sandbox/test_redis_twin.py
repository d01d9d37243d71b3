"""A server that uses Redis, in a twin: it reaches its own copy over one bound socket, nothing else, and the copy's server dies with it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from enforcer.sandbox import template
from enforcer.sandbox.pool import Pool
from enforcer.sandbox.snapshots import StateSnapshots
from escrow.sandbox.run import Run
from tests.enforcer.helper.world import until
from tests.enforcer.sandbox.world import ROOT, World, request, text, world

pytestmark = [
    pytest.mark.root, pytest.mark.runsc, pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed"),
]  # fmt: skip
OWN = "/run/redis/r.sock"


@pytest.fixture(scope="module")
def live() -> Iterator[Path]:
    with TemporaryDirectory(prefix="holdfast-redis-") as folder:
        listens = Path(folder) / "live.sock"
        command = ["redis-server", "--port", "0", "--unixsocket", str(listens), "--dir", folder, "--save", ""]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert any("accept connections" in line for line in process.stdout)
                yield listens
            finally:
                process.kill()


@pytest.fixture(scope="module")
def made(live: Path) -> Iterator[tuple[World, template.Template]]:
    state = [{"kind": "redis", "url": f"unix://{live}", "socket": OWN}]
    with world(state=state, pool=0, snapshot_ms=5000, run_ms=20_000) as here:
        yield here, asyncio.run(template.build(here.maker, here.templates, StateSnapshots(here.maker.settings), lambda text: None))


def said(live: Path, *words: str) -> str:
    return subprocess.run(["redis-cli", "-s", str(live), *words], capture_output=True, text=True, timeout=10).stdout.strip()


def servers() -> set[str]:
    """Redis servers of twins: as nobody."""
    found = subprocess.run(["pgrep", "-u", "nobody", "redis-server"], capture_output=True, text=True, check=False)
    return set(found.stdout.split())


def run(made: tuple[World, template.Template], tool: str, **arguments: object) -> Run:
    here, template_ = made

    async def once() -> Run:
        pool = Pool(here.maker, template_, here.templates, StateSnapshots(here.maker.settings))
        try:
            return await pool.once(request(tool, **arguments), 7)
        finally:
            await pool.close()

    return asyncio.run(once())


def test_it_finds_the_copy_of_that_moment_and_what_it_writes_stays_there(made: tuple[World, template.Template], live: Path) -> None:
    said(live, "set", "key", "before")
    others = servers()
    assert text(run(made, "redis", path=OWN, words="get key").answer) == "before"
    assert text(run(made, "redis", path=OWN, words="set key twin").answer) == "+OK"
    assert said(live, "get", "key") == "before"
    until(lambda: servers() <= others)


def test_a_connection_to_its_copy_is_inside_and_the_run_is_whole(made: tuple[World, template.Template], live: Path) -> None:
    found = run(made, "redis", path=OWN, words="ping")
    assert text(found.answer) == "+PONG"
    assert found.effects.complete and not found.network, found.effects


@pytest.mark.parametrize("path", ["LIVE", "/run/dbus/system_bus_socket", "/var/run/docker.sock"])
def test_no_other_socket_is_reached(made: tuple[World, template.Template], live: Path, path: str) -> None:
    found = run(made, "redis", path=path.replace("LIVE", str(live)), words="ping")
    assert "PONG" not in str(found.answer) and b"isError" in (found.answer or b"")
    assert not found.effects.complete  # the trace has no path of a Unix socket


def test_a_socket_of_the_host_that_the_root_shows_is_closed(made: tuple[World, template.Template], live: Path) -> None:
    here, _ = made
    for path in (here.folder / "other.sock", here.folder / "shown" / "other.sock"):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            path.chmod(0o777)
            listener.listen()
            listener.settimeout(0)
            found = run(made, "redis", path=str(path), words="ping")
            assert b"isError" in (found.answer or b"") and not found.effects.complete, found
            with pytest.raises(BlockingIOError):
                listener.accept()


KEEPER = """
import sys, time
from pathlib import Path
from enforcer.sandbox.state.freezing import freeze
from escrow.sandbox.settings import Redis
frozen = freeze((Redis(kind="redis", url="unix://" + sys.argv[1], socket="/run/redis/r.sock"),), Path(sys.argv[2]), time.monotonic() + 10)
print(frozen.why or frozen.processes[0], flush=True)
time.sleep(60)
"""


def test_the_copys_server_dies_with_a_keeper_that_is_killed(live: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    with (
        TemporaryDirectory(prefix="holdfast-redis-") as folder,
        subprocess.Popen([sys.executable, "-c", KEEPER, str(live), f"{folder}/frozen"], stdout=subprocess.PIPE, text=True, cwd=ROOT) as keeper,
    ):
        Path(folder).chmod(0o711)
        assert keeper.stdout is not None
        pid = keeper.stdout.readline().strip()
        assert pid.isdecimal() and pid in servers(), pid
        keeper.send_signal(signal.SIGKILL)
        keeper.wait()
        until(lambda: pid not in servers())
