"""Starting a keeper without the helper: in proxy mode, as root."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys

from enforcer.sandbox.plan import KeeperPlan


def missing() -> str:
    """Why there can be no keeper here; "" where there can."""
    if sys.platform != "linux":
        return "twins need Linux: gVisor runs nowhere else"
    if os.geteuid() != 0:
        return "twins need root: they mount state and start runsc"
    return "" if shutil.which("runsc") is not None else "runsc is not installed"


def spawn_local(plan: KeeperPlan) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a keeper. Closing the socket ends it and its twins; the caller waits for the process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    servers = json.dumps({name: settings.model_dump(mode="json") for name, settings in plan.servers.items()})
    hidden = [word for path in plan.hidden for word in ("--hidden", str(path))]
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "enforcer.sandbox.keeper", "--fd", str(theirs.fileno()), "--folder", str(plan.folder), "--servers", servers, *hidden],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")},
        )
    return ours, process
