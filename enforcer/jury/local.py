"""A member that this process starts itself, for the gate without a helper."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from escrow.jury_settings import JurySettings

_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""How OpenSSL is told where a system keeps its certificate authorities: all that a member has of our environment."""


def spawn_local(settings: JurySettings) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a member. It reads the key file itself. Closing the socket ends it; the caller waits for the process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "enforcer.jury.member", "--fd", str(theirs.fileno()), "--settings", settings.model_dump_json()],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env={"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"}
            | {name: os.environ[name] for name in _AUTHORITIES if name in os.environ},
        )
    return ours, process
