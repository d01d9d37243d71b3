"""`holdfast doctor`: what this machine has, what each missing thing costs, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from ctypes.util import find_library
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.markup import escape

from enforcer.cli import render
from enforcer.cli.places import Json, RuntimeDir, StateDir
from enforcer.sandbox.runsc import OLDEST, lacks


@dataclass(frozen=True, slots=True)
class Check:
    """needed: whether `holdfast start` works without it. costs, get: said where it is missing."""

    name: str
    ok: bool
    found: str
    needed: bool
    costs: str
    get: str


def checks() -> list[Check]:
    """Look at the machine; changes nothing."""
    release = platform.release()
    parts = release.split("-")[0].split(".")
    numbers = [int("".join(c for c in part if c.isdigit()) or 0) for part in parts[:2]]
    kernel = sys.platform == "linux" and numbers >= [5, 17]
    capabilities = _effective()
    wanted = {"CAP_BPF": 39, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
    missing = [name for name, bit in wanted.items() if not capabilities >> bit & 1]
    objects = Path(__file__).parent.parent / "kernel/objects/steer.bpf.o"
    found_runsc, lacking = _runsc()
    return [
        Check("kernel", kernel, f"{sys.platform} {release}", True, "no steering: clients must be pointed at `holdfast proxy`", "Linux 5.17 or newer"),
        Check(
            "BTF",
            Path("/sys/kernel/btf/vmlinux").exists(),
            "/sys/kernel/btf/vmlinux",
            False,
            "programs must be compiled at start",
            "a kernel with CONFIG_DEBUG_INFO_BTF",
        ),
        Check(
            "bpffs",
            Path("/sys/fs/bpf").is_dir(),
            "/sys/fs/bpf",
            True,
            "the link cannot be pinned",
            "mount -t bpf bpf /sys/fs/bpf (holdfast does it itself as root)",
        ),
        Check(
            "cgroup2",
            _cgroup2() is not None,
            _cgroup2() or "",
            False,
            "local callers are told apart by uid only; no fence",
            "mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
        Check("capabilities", not missing, ", ".join(missing) + " missing" if missing else "all there", True, "no steering", "run as root"),
        Check("libbpf", find_library("bpf") is not None, find_library("bpf") or "", True, "no steering", "apt install libbpf1"),
        Check("steering program", objects.exists(), objects.name, True, "no steering", "make bpf (needs clang and libbpf-dev)"),
        Check(
            "seccomp",
            _seccomp(),
            "python3-seccomp",
            True,
            "the daemon cannot be confined, so it does not start",
            "apt install python3-seccomp; a venv with --system-site-packages",
        ),
        Check(
            "kernel headers",
            Path(f"/lib/modules/{release}/build").exists(),
            f"/lib/modules/{release}/build",
            False,
            "the bcc loader cannot compile",
            "apt install linux-headers",
        ),
        Check("runsc", not lacking, found_runsc, False, f"no second judge: {lacking}", f"apt install runsc, {OLDEST} or newer: backports has it"),
    ]


def doctor(as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """Check what this machine has. Exit code 1 where `holdfast start` could not work."""
    found = checks()
    bad = any(check.needed and not check.ok for check in found)
    if as_json:
        render.print_json({"can_start": not bad, "checks": [asdict(check) for check in found]})
        raise typer.Exit(1 if bad else 0)
    for check in found:
        mark = "[green]ok[/]     " if check.ok else ("[red]missing[/]" if check.needed else "[yellow]absent[/] ")
        render.out.print(f"{mark} {check.name}: {escape(check.found)}")
        if not check.ok:
            render.out.print(f"          costs: {check.costs}\n          get it: {check.get}")
    if bad:
        render.out.print("`holdfast start` cannot work here; `holdfast proxy` runs the same gate without the kernel.")
    raise typer.Exit(1 if bad else 0)


def _effective() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


def _cgroup2() -> str | None:
    try:
        return next((line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"), None)
    except OSError:
        return None


def _seccomp() -> bool:
    try:
        import seccomp  # noqa: F401
    except ImportError:
        return False
    return os.path.exists("/proc/sys/kernel/seccomp/actions_avail")


def _runsc() -> tuple[str, str]:
    """Which runsc is there, and what it lacks."""
    path = shutil.which("runsc")
    if path is None:
        return "", "it is not installed"
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return path, "it does not run"
    return (said.splitlines() or [path])[0], lacks(said)
