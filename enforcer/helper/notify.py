"""systemd's readiness protocol (sd_notify(3)): one datagram to $NOTIFY_SOCKET; nothing where there is none."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """state: "READY=1", "STOPPING=1", …"""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
