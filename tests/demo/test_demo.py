"""The demo is a test: it ends well where all is as it must be, and leaves nothing behind, also when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.real.process import ROOT

LONG_S = 120


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "tests.demo", "--picture", str(folder / "picture.svg")]
    (folder / "tmp").mkdir()
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(folder / "tmp")}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip


def test_everything_is_as_expected(tmp_path: Path) -> None:
    demo = start(tmp_path)
    output, _ = demo.communicate(timeout=LONG_S)
    assert demo.returncode == 0, output
    assert "\x1b" not in output, "colour only on a terminal"
    assert (tmp_path / "picture.svg").read_text("utf-8").startswith("<svg")
    assert not list((tmp_path / "tmp").iterdir())


def test_an_interrupt_ends_and_removes_everything(tmp_path: Path) -> None:
    demo = start(tmp_path)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "What is held" in line:
            break
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=LONG_S)
    assert demo.returncode == 130, output
    assert not list((tmp_path / "tmp").iterdir())
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert left.stdout == ""
