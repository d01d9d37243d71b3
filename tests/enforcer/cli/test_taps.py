"""`holdfast taps` on this machine: what is covered and what is not, for programs that really run."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from enforcer.cli.app import app

pytestmark = [pytest.mark.root, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


def listed() -> list[dict[str, object]]:
    said = CliRunner().invoke(app, ["taps", "--json"])
    assert said.exit_code == 0, said.output
    targets: list[dict[str, object]] = json.loads(said.output)["targets"]
    return targets


def test_a_library_in_use_is_listed_with_its_functions() -> None:
    assert ssl.OPENSSL_VERSION  # this process has it mapped
    mine = [each for each in listed() if os.getpid() in list(each["pids"])]  # type: ignore[call-overload]
    (openssl,) = [each for each in mine if Path(str(each["path"])).name.startswith("libssl.so")]
    assert {"SSL_read_ex", "SSL_write_ex"} <= set(openssl["covered"])  # type: ignore[call-overload]
    assert "BIO_f_ssl" in str(openssl["uncovered"])
    assert os.readlink("/proc/self/exe") in list(openssl["programs"])  # type: ignore[call-overload]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_program_whose_tls_cannot_be_seen_is_named(tmp_path: Path) -> None:
    source = tmp_path / "main.c"
    source.write_text('#include <unistd.h>\nconst char *kept = "/src/rustls-0.23.1/src/lib.rs"; int main(void) { return write(1, kept, 1) + pause(); }')
    subprocess.run(["gcc", source, "-o", tmp_path / "tool"], check=True, timeout=20)
    with subprocess.Popen([tmp_path / "tool"], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stdout.read(1)
        (found,) = [each for each in listed() if each["path"] == str(tmp_path / "tool")]
        text = CliRunner().invoke(app, ["taps"]).output
        running.kill()
    assert (found["kind"], found["covered"], found["pids"]) == ("rustls", [], [running.pid])
    assert "not seen" in text and "rustls is not probed" in text
