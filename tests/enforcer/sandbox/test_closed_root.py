"""A root without sockets: the same files, what is covered stays covered, and no listener of the host is reached."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.enforcer.sandbox.world import ROOT

pytestmark = pytest.mark.root
SCRIPT = """
import json, os, socket, sys
from pathlib import Path
from enforcer.privilege import libc
from enforcer.sandbox import closed_root

folder = Path(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
(folder / "shown" / "other").mkdir(parents=True)
for name in ("secret", "seen"):
    (folder / "shown" / name).write_text(name)
for name in ("covered", "mounted", "hidden"):
    (folder / "shown" / name).mkdir()
    (folder / "shown" / name / "file").write_text(name)
libc.mount("tmpfs", str(folder / "shown" / "covered"), "tmpfs", 0, "mode=0700")
libc.mount("tmpfs", str(folder / "shown" / "mounted"), "tmpfs", 0, "mode=0755")
(folder / "shown" / "mounted" / "below").write_text("below")
libc.mount("/dev/null", str(folder / "shown" / "secret"), None, libc.MS_BIND)
sockets = [folder / "shown" / "a.sock", folder / "shown" / "mounted" / "b.sock"]
held = []
for path in sockets:
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].bind(str(path))
    held[-1].listen()
twin = folder / "twins" / "twin-1"
twin.mkdir(parents=True)
closed_root.close("/", twin / "root", twin / "nothing", (str(folder / "shown" / "hidden"),))
view = Path(f"{twin}/root{folder}/shown")
refused = []
for path in sockets:
    with socket.socket(socket.AF_UNIX) as to:
        os.chdir(Path(f"{twin}/root{path}").parent)  # a socket's path has 108 bytes
        try:
            to.connect(path.name)
        except OSError as error:
            refused.append(error.errno)
try:
    (view / "new").write_text("")
    written = True
except OSError:
    written = False
print(json.dumps({
    "seen": (view / "seen").read_text(), "secret": (view / "secret").read_text(), "covered": sorted(os.listdir(view / "covered")),
    "mounted": (view / "mounted" / "below").read_text(), "refused": refused, "written": written, "proc": os.listdir(twin / "root" / "proc"),
}))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    with TemporaryDirectory(prefix="hf-", dir="/var/tmp") as name:
        done = subprocess.run(
            ["unshare", "--mount", sys.executable, "-c", SCRIPT, str(Path(name).resolve())], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def test_files_are_seen_and_cannot_be_written(seen: dict[str, Any]) -> None:
    assert (seen["seen"], seen["mounted"], seen["written"]) == ("seen", "below", False)


def test_what_a_mount_covers_stays_covered(seen: dict[str, Any]) -> None:
    assert (seen["secret"], seen["covered"]) == ("", [])


def test_no_listener_is_reached_on_the_root_or_on_what_is_mounted_in_it(seen: dict[str, Any]) -> None:
    assert seen["refused"] == [111, 111]  # ECONNREFUSED


def test_nothing_of_the_kernels_is_shown(seen: dict[str, Any]) -> None:
    assert seen["proc"] == []
