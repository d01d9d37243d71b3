"""The official conformance suite as a function: a server's URL in, each check's status out."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.real.server import HERE, NODE

PROGRAM = HERE / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
_STAMP = re.compile(r"-20\d\d-\d\d-\d\dT.*")
Checks = dict[str, str]
"""scenario/check → SUCCESS, FAILURE, WARNING, INFO or SKIPPED."""


def missing() -> str | None:
    """Why the suite cannot run here, or None."""
    return None if NODE.exists() and PROGRAM.exists() else "npm packages are not installed (npm ci --prefix tests/real)"


def run(url: str, directory: Path) -> Checks:
    """Run every server scenario. A check that a scenario makes several times counts with its worst status."""
    subprocess.run(
        [str(NODE), str(PROGRAM), "server", "--url", url, "--suite", "all", "-o", str(directory)],
        capture_output=True, timeout=180, check=False,  # its exit code counts failures: the files say which
    )  # fmt: skip
    order = ("FAILURE", "WARNING", "SKIPPED", "INFO", "SUCCESS")
    found: Checks = {}
    for file in sorted(directory.glob("server-*/checks.json")):
        scenario = _STAMP.sub("", file.parent.name.removeprefix("server-"))
        for check in json.loads(file.read_text()):
            name = f"{scenario}/{check['id']}"
            found[name] = min(found.get(name, "SUCCESS"), check["status"], key=order.index)
    return found


def beside(direct: Checks, through: Checks) -> str:
    """Both lists side by side."""
    names = sorted(direct | through)
    wide = max(map(len, names), default=0)
    rows = [f"{name:<{wide}}  {direct.get(name, 'absent'):<8} {through.get(name, 'absent')}" for name in names]
    return "\n".join([f"{'':<{wide}}  {'direct':<8} through the gate", *rows])


def lost(direct: Checks, through: Checks) -> list[str]:
    """What passes directly and not through the gate."""
    return [name for name, status in direct.items() if status == "SUCCESS" and through.get(name) != "SUCCESS"]
