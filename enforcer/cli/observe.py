"""`holdfast observe`: look at what processes say over TLS, and judge it after the fact. Nothing is held, nothing is delayed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from enforcer.cli.places import RuntimeDir, StateDir
from enforcer.cli.run import Loader, McpListen, PolicyFile, loader_named, steered
from enforcer.helper.sights import Scope, TapPlan
from enforcer.kernel.cgroup import mount_point


def observe(
    pid: Annotated[int | None, typer.Option("--pid", min=1, help="One process.")] = None,
    cgroup: Annotated[Path | None, typer.Option("--cgroup", help="A control group (v2) and all below it: its path, from cgroup2's root on.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Every process of the machine.")] = False,
    policy: PolicyFile = None,
    loader: Loader = "libbpf",
    mcp_listen: McpListen = "none",
    state: StateDir = None,
    runtime: RuntimeDir = None,
) -> None:
    """Judge what processes say over TLS, MCP and language models' APIs, after the fact. Root only; stays in the foreground.

    Example: holdfast observe --pid 4711; holdfast verdicts --follow
    """
    if [pid is not None, cgroup is not None, everybody].count(True) != 1:
        raise typer.BadParameter("one of --pid, --cgroup and --all is wanted")
    scope = Scope()
    if pid is not None:
        if not Path(f"/proc/{pid}").is_dir():
            raise typer.BadParameter("there is no such process", param_hint="--pid")
        scope = Scope(pids=frozenset({pid}))
    elif cgroup is not None:
        scope = _of_cgroup(cgroup)
    raise typer.Exit(steered("observe", 0, None, policy, TapPlan(frozenset(), scope, loader_named(loader), guards=False), mcp_listen, state, runtime))


def _of_cgroup(path: Path) -> Scope:
    root = mount_point(Path("/proc/self/mounts").read_text("utf-8"))
    if root is None:
        raise typer.BadParameter("this machine has no control groups (v2)", param_hint="--cgroup")
    place = path if path.is_relative_to(root) else root / str(path).lstrip("/")
    if not (place / "cgroup.procs").is_file() or place == root:
        raise typer.BadParameter(f"it is no control group below {root}", param_hint="--cgroup")
    return Scope(cgroup=os.stat(place).st_ino, cgroup_level=len(place.relative_to(root).parts))
