"""Everything the daemon is given at its start, and all it will ever have: it can open no socket and enter no folder by itself.

Filled by the helper's fork in enforce mode, by `holdfast proxy` in proxy mode.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from escrow.policy import Policy
from escrow.policy.places import Path as Place


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """PEM bytes, read by whoever may read the files. upstream_ca: None means the system's authorities."""

    cert: bytes
    key: bytes
    upstream_ca: bytes | None = None


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where `holdfast proxy` sends requests."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class WindowPlace:
    """Where supervising agents find the window. url: None where there is none, and `why` says why."""

    url: str | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Inherited:
    """mode: enforce = steered by the kernel, with a helper; observe = the taps alone, with a helper; proxy = an ordinary reverse proxy, alone.

    policy_path: for views; the daemon cannot read it. None: no file, the defaults.
    port: the guarded port (enforce), the one watched (observe; 0: none), or the one listened on (proxy).
    server: what the guarded server is called.
    listeners: the gate's listening sockets, already listening.
    control: the control socket, already listening.
    state_dir: as the daemon sees it. shown_state_dir, control_path: as people see them.
    helper: SOCK_SEQPACKET to the helper, for `HelperChannel`. None in proxy mode.
    diag: NETLINK_SOCK_DIAG of the guarded namespace, for `sockdiag.owner`. None where there is no such thing.
    netns: the guarded namespace, for views.
    workers: sockets of workers that exist already. Steered, they come as facts from the helper instead.
    tls, bearer_key: what the files named in the policy held; None where it names none.
    upstream: proxy mode only.
    policy_lines: at which lines of policy_path its keys stand; for views.
    taps: whether a process of the taps is to come.
    """

    mode: Literal["enforce", "observe", "proxy"]
    policy: Policy
    policy_path: Path | None
    port: int
    server: str
    listeners: tuple[socket.socket, ...]
    control: socket.socket
    state_dir: Path
    shown_state_dir: Path
    control_path: Path
    helper: socket.socket | None = None
    diag: socket.socket | None = None
    netns: str = ""
    workers: tuple[socket.socket, ...] = ()
    tls: TlsMaterial | None = None
    bearer_key: bytes | None = None
    upstream: Upstream | None = None
    policy_lines: dict[Place, int] = field(default_factory=dict)
    window: WindowPlace = WindowPlace(None, "not asked for")
    window_diag: socket.socket | None = None
    window_listeners: tuple[socket.socket, ...] = ()
    taps: bool = False
