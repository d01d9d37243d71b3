"""Where an instance keeps its files: FHS paths for root, XDG paths for everybody else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

StateDir = Annotated[
    Path | None, typer.Option("--state-dir", envvar="HOLDFAST_STATE_DIR", help="Where held results are kept (default: /var/lib/holdfast, or XDG_STATE_HOME).")
]
RuntimeDir = Annotated[
    Path | None, typer.Option("--runtime-dir", envvar="HOLDFAST_RUNTIME_DIR", help="Where the control socket is (default: /run/holdfast, or XDG_RUNTIME_DIR).")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def state_dir(given: Path | None) -> Path:
    if given is not None:
        return given.absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/holdfast")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "holdfast"


def runtime_dir(given: Path | None) -> Path:
    if given is not None:
        return given.absolute()
    if os.geteuid() == 0:
        return Path("/run/holdfast")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/holdfast-{os.geteuid()}") / "holdfast"


def control_socket(given: Path | None) -> Path:
    return runtime_dir(given) / "control.sock"
