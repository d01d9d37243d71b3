"""`holdfast start`: checks everything, says what is missing, and becomes the helper."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from enforcer.helper import lock, material, traces
from enforcer.helper.programs import Programs
from enforcer.helper.sights import TapPlan
from enforcer.helper.supervisor import DaemonFailed, Plan, Supervisor
from enforcer.helper.window import NotListening, listen
from enforcer.kernel import namespace, sockdiag, steer
from enforcer.kernel.bpffs import PinDir
from enforcer.kernel.errors import KernelError, Missing
from enforcer.kernel.namespace import Namespace
from enforcer.privilege import capabilities, identity, jail
from escrow.policy import Policy
from escrow.policy.places import Path as Place

log = logging.getLogger("holdfast.helper")

DONE, FAILED = 0, 1
PROXY_HINT = "`holdfast proxy --listen HOST:PORT --upstream URL` needs none of this: it is the same gate without the kernel."


class NotUsable(Exception):
    """A file or folder that the options name cannot be used; `str()` says which and why."""


_FAILURES = (DaemonFailed, NotListening, NotUsable, material.NotReadable)
"""Of a start, beside the kernel's; `str()` says why."""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """netns: None, a process's number, or a path. policy: loaded from policy_path (None: the defaults).

    state_dir, runtime_dir: made where they are not; `runtime_dir` is for root alone.
    mcp_listen: HOST:PORT of the supervisor's window, "none", or None for the default address where that is free.
    taps: what they watch; None: no taps. mode: observe needs them, and steers nothing; its port may be 0: none.
    """

    port: int
    netns: str | None
    policy: Policy
    policy_path: Path | None
    state_dir: Path
    runtime_dir: Path
    programs: Programs = field(default_factory=Programs)
    mcp_listen: str | None = None
    policy_lines: dict[Place, int] = field(default_factory=dict)
    taps: TapPlan | None = None
    mode: Literal["enforce", "observe"] = "enforce"


def start(options: StartOptions, announce: Callable[[str], None] | None = None) -> int:
    """Guard or observe the port until SIGTERM, SIGINT or `holdfast stop`. 0: done; 1: could not, and said why on standard error.

    announce: is given the one JSON line when live; standard output by default.
    """
    try:
        _check_privileges()
        found = namespace.find(options.netns)
        if options.mode == "observe":
            return _observe(options, found, announce or _print)
        held = lock.take(found.inode, options.port)
    except lock.Held as other:
        return _fail(f"port {options.port} of this namespace is already guarded by process {other.pid or 'unknown'}")
    except KernelError as error:
        return _fail(str(error), hint=isinstance(error, Missing))
    except _FAILURES as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(str(error))
    try:
        return _guard(options, found, announce or _print)
    except Missing as error:
        return _fail(str(error), hint=True)
    except (KernelError, *_FAILURES) as error:
        return _fail(str(error))
    finally:
        traces.remove_files(options.runtime_dir, but_record=PinDir(found.inode, options.port).path.exists())
        lock.release(held, found.inode, options.port)


def _guard(options: StartOptions, found: Namespace, announce: Callable[[str], None]) -> int:
    plan = _plan(options, found)
    found.enter()
    if not namespace.loopback_is_up():
        raise KernelError("the loopback interface of the namespace is down, and the gate speaks to the server over it (ip link set lo up)")
    steering = steer.Steering(found, plan.port, fail_open=plan.policy.fail == "open")
    traces.write(plan.runtime_dir, traces.Instance(pid=os.getpid(), port=plan.port, netns=found.inode, pins=str(steering.pins.path)))
    if not _has_listener(plan.port):
        log.warning("nothing listens on port %d yet; connections will fail until the server does", plan.port)
    _supervise(plan, steering, announce)
    return DONE


def _observe(options: StartOptions, found: Namespace, announce: Callable[[str], None]) -> int:
    """No lock, no pins, no listener: nothing that could stand in anybody's way, and nothing to remove but the control socket."""
    try:
        plan = _plan(options, found)
        found.enter()
        _supervise(plan, None, announce)
    finally:
        traces.remove_files(options.runtime_dir)
    return DONE


def _supervise(plan: Plan, steering: steer.Steering | None, announce: Callable[[str], None]) -> None:
    async def supervise() -> None:
        await Supervisor(plan, steering, announce).run()

    asyncio.run(supervise())


def _plan(options: StartOptions, found: Namespace) -> Plan:
    """Everything read and checked, and the folders made."""
    material.check(options.policy)
    plan = Plan(
        port=options.port, namespace=found, policy=options.policy, policy_path=options.policy_path, state_dir=options.state_dir.absolute(),
        runtime_dir=options.runtime_dir.absolute(), programs=options.programs,
        window=listen(options.mcp_listen), home=os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC), home_diag=sockdiag.open_socket(),
        policy_lines=options.policy_lines, taps=options.taps,
    )  # fmt: skip
    _make_runtime_dir(plan.runtime_dir)
    _make_state_dir(plan.state_dir)
    jail.prepare()
    return plan


def _check_privileges() -> None:
    if os.geteuid() != 0:
        raise Missing("`holdfast start` must run as root")
    missing = capabilities.missing_to_start()
    if missing:
        raise Missing(f"this process lacks {', '.join(missing)}")


def _make_runtime_dir(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0:
        raise NotUsable(f"the runtime folder {path} is not a folder of root's own")
    path.chmod(0o700)


def _make_state_dir(path: Path) -> None:
    """Make it the daemon's own. One that holds anything is taken only from the daemon's own user; what `holdfast sandbox build` made before stays root's."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found, daemon = path.lstat(), identity.daemon()
    if not stat.S_ISDIR(found.st_mode):
        raise NotUsable(f"the state folder {path} is not a folder")
    if found.st_uid != daemon.uid:
        if any(entry.name != "sandbox" for entry in path.iterdir()):
            needed = f"the daemon runs as {daemon.uid} (chown -R {daemon.uid}:{daemon.gid} {path})"
            raise NotUsable(f"the state folder {path} belongs to user {found.st_uid}; {needed}")
        os.chown(path, daemon.uid, daemon.gid)
    path.chmod(0o700)


def _has_listener(port: int) -> bool:
    with sockdiag.open_socket() as diag:
        return sockdiag.listens(diag, port)


def _print(line: str) -> None:
    print(line, flush=True)


def _fail(text: str, hint: bool = False) -> int:
    print(f"holdfast start: {text}" + (f"\n{PROXY_HINT}" if hint else ""), file=sys.stderr, flush=True)
    return FAILED
