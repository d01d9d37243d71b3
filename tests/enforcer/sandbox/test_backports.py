"""The backports entry that `make setup` derives from a machine's own apt sources."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "setup" / "runsc.sh"
DEB822 = """Types: deb
# a comment
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/archive.gpg
"""
ONE_LINE = """# deb http://old.example/debian bookworm main
deb http://mirror.example/debian-security bookworm-security main
deb [signed-by=/usr/share/keyrings/archive.gpg] http://mirror.example/debian bookworm main
"""


@pytest.mark.parametrize(
    "name, text, entry",
    [
        (
            "debian.sources",
            DEB822,
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\nSigned-By: /usr/share/keyrings/archive.gpg\n",
        ),
        ("sources.list", ONE_LINE, "deb [signed-by=/usr/share/keyrings/archive.gpg] http://mirror.example/debian bookworm-backports main\n"),
    ],
)
def test_a_backports_entry_is_the_releases_own_source_with_another_suite(tmp_path: Path, name: str, text: str, entry: str) -> None:
    (tmp_path / name).write_text(text)
    found = subprocess.run(["sh", SCRIPT, "entry", "bookworm", tmp_path / name], capture_output=True, text=True, timeout=10, check=True)
    assert found.stdout == entry


def test_without_a_source_of_the_release_there_is_no_entry(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(ONE_LINE)
    assert subprocess.run(["sh", SCRIPT, "entry", "trixie", tmp_path / "sources.list"], timeout=10, check=False).returncode == 1
