"""`holdfast start | proxy | stop | test`: the life of an instance."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from enforcer.cli import render
from enforcer.cli.places import Json, RuntimeDir, StateDir, control_socket, runtime_dir, state_dir
from enforcer.control import client
from enforcer.helper.sights import Loader as Loading
from enforcer.helper.sights import TapPlan
from escrow.policy import Document, Policy, PolicyError, read

PolicyFile = Annotated[Path | None, typer.Option("--policy", envvar="HOLDFAST_POLICY", help="A policy file (TOML). Without one, the safe defaults.")]

McpListen = Annotated[
    str | None,
    typer.Option(
        "--mcp-listen", help="HOST:PORT of the supervisors' MCP window, or none (default: 127.0.0.1:8790; where that is taken, it starts without a window)."
    ),
]


Loader = Annotated[str, typer.Option("--loader", help="What loads the kernel taps: libbpf, or bcc where the kernel has no BTF.")]


class CannotStart(Exception):
    """`str()` says what is missing and what to do."""


_SOCKET_PATH_BYTES = 107
"""unix(7): sun_path, less its NUL."""


class CannotStop(Exception):
    """`str()` says what happened."""


def read_policy(path: Path | None) -> Policy:
    """The policy in a file, or the defaults. Raises PolicyError."""
    return read_document(path).policy


def read_document(path: Path | None) -> Document:
    """The same, with the lines of its keys. Raises PolicyError."""
    if path is None:
        return read("", "the defaults")
    try:
        return read(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: {error}") from None


def start(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port the MCP server listens on.")],
    netns: Annotated[str | None, typer.Option("--netns", help="The server's network namespace: a process id or a path (default: this one).")] = None,
    policy: PolicyFile = None,
    mode: Annotated[str, typer.Option("--mode", help="enforce: hold results. observe: hold nothing, judge what the kernel taps saw.")] = "enforce",
    loader: Loader = "libbpf",
    taps: Annotated[bool, typer.Option("--taps/--no-taps", help="Whether the kernel's taps check that nothing passes the gate by.")] = True,
    mcp_listen: McpListen = None,
    state: StateDir = None,
    runtime: RuntimeDir = None,
) -> None:
    """Guard a port: steer its new connections through the gate; or, with --mode observe, only look. Root only; stays in the foreground.

    Prints one JSON line {"event":"ready",…} when live. SIGTERM ends it. Example: holdfast start --port 8931
    """
    if mode not in ("enforce", "observe"):
        raise typer.BadParameter("enforce or observe is wanted", param_hint="--mode")
    if mode == "observe" and not taps:
        raise typer.BadParameter("observe mode is the taps", param_hint="--no-taps")
    watched = TapPlan(frozenset({port}), None, loader_named(loader), guards=mode == "enforce") if taps else None
    raise typer.Exit(steered("observe" if mode == "observe" else "enforce", port, netns, policy, watched, mcp_listen, state, runtime))


def steered(
    mode: Literal["enforce", "observe"],
    port: int,
    netns: str | None,
    policy: Path | None,
    watched: TapPlan | None,
    mcp_listen: str | None,
    state: Path | None,
    runtime: Path | None,
) -> int:
    """Become the helper; the exit code. port: 0 where none is observed."""
    if sys.platform != "linux":
        raise CannotStart("this needs Linux; `holdfast proxy --listen … --upstream …` runs the same gate anywhere")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    from enforcer.helper.start import StartOptions
    from enforcer.helper.start import start as begin

    document = read_document(policy)
    if len(os.fsencode(control_socket(runtime))) > _SOCKET_PATH_BYTES:
        raise CannotStart(f"{control_socket(runtime)} is too long for a socket's path: give --runtime-dir a shorter folder")
    if mode == "observe":
        _refuse_second(control_socket(runtime))
    options = StartOptions(
        port=port,
        netns=netns,
        policy=document.policy,
        policy_lines=document.lines,
        policy_path=policy.absolute() if policy else None,
        state_dir=state_dir(state),
        runtime_dir=runtime_dir(runtime),
        mcp_listen=mcp_listen,
        taps=watched,
        mode=mode,
    )
    return begin(options)


def loader_named(name: str) -> Loading:
    if name == "libbpf":
        return "libbpf"
    if name == "bcc":
        return "bcc"
    raise typer.BadParameter("libbpf or bcc is wanted", param_hint="--loader")


def _refuse_second(path: Path) -> None:
    """Two that use one runtime folder would take each other's control socket."""
    try:
        client.ask(path, "status", timeout_s=2)
    except (client.Unreachable, client.Refused):
        return
    raise CannotStart(f"another Holdfast answers at {path}: stop it, or give --runtime-dir another")


def proxy(
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT for clients.")],
    upstream: Annotated[str, typer.Option("--upstream", help="The MCP server: http://HOST:PORT or https://HOST:PORT.")],
    policy: PolicyFile = None,
    mcp_listen: McpListen = None,
    state: StateDir = None,
    runtime: RuntimeDir = None,
) -> None:
    """The same gate as an ordinary reverse proxy, without the kernel. Only clients that use its address are guarded.

    Example: holdfast proxy --listen 127.0.0.1:8900 --upstream http://127.0.0.1:8931
    """
    from enforcer import daemon
    from enforcer.helper import material, window
    from enforcer.inherited import Inherited, Upstream

    document = read_document(policy)
    chosen = document.policy
    host, _, port = listen.rpartition(":")
    target = urlsplit(upstream)
    if not port.isdigit() or not host:
        raise typer.BadParameter("HOST:PORT is wanted, such as 127.0.0.1:8900", param_hint="--listen")
    if target.scheme not in ("http", "https") or not target.hostname or target.path not in ("", "/"):
        raise typer.BadParameter("http://HOST:PORT is wanted, without a path: paths go through as they are", param_hint="--upstream")
    control_path = control_socket(runtime)
    control_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(4096)
    except OSError as error:
        raise CannotStart(f"{listen} cannot be listened on: {error.strerror or error}") from None
    try:
        opened = window.listen(mcp_listen)
    except window.NotListening as error:
        raise CannotStart(str(error)) from None
    try:
        tls, bearer_key = material.tls(chosen), material.bearer_key(chosen)
    except material.NotReadable as error:
        raise CannotStart(str(error)) from None
    given = Inherited(
        mode="proxy",
        policy=chosen,
        policy_lines=document.lines,
        policy_path=policy.absolute() if policy else None,
        port=listener.getsockname()[1],
        server=chosen.server.name or f"{target.hostname}:{target.port or (443 if target.scheme == 'https' else 80)}",
        listeners=(listener,),
        control=_control(control_path),
        state_dir=state_dir(state),
        shown_state_dir=state_dir(state),
        control_path=control_path,
        diag=(diag := _diag()),
        window=opened.place,
        window_diag=diag,
        window_listeners=opened.listeners,
        tls=tls,
        bearer_key=bearer_key,
        upstream=Upstream(target.hostname, target.port or (443 if target.scheme == "https" else 80), target.scheme == "https"),
    )
    daemon.prepare()
    threading.Thread(target=_announce, args=(control_path, given.port), daemon=True).start()
    try:
        code = daemon.run(given)
    finally:
        with contextlib.suppress(OSError):
            control_path.unlink()
    raise typer.Exit(code)


def _announce(path: Path, port: int) -> None:
    """Print the one JSON line once the daemon itself answers."""
    for _ in range(600):
        try:
            status = client.ask(path, "status", timeout_s=5)
        except (client.Unreachable, client.Refused):
            time.sleep(0.02)
            continue
        window = status["window"]
        render.print_json(
            {"event": "ready", "mode": "proxy", "port": port, "pid": os.getpid(), "daemon_pid": status["pid"], "control": str(path)}
            | {"window": window["url"], "window_why": window["why"]}
        )
        return


def _control(path: Path) -> socket.socket:
    """The listening control socket, 0600; a dead one in its place is replaced, a living one is an error."""
    _refuse_second(path)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        sock.bind(str(path))
    except OSError as error:
        raise CannotStart(f"{path} cannot be made: {error}; a shorter --runtime-dir may help") from None
    finally:
        os.umask(old)
    sock.listen(64)
    return sock


def _diag() -> socket.socket | None:
    if sys.platform != "linux":
        return None
    from enforcer.kernel import sockdiag

    try:
        return sockdiag.open_socket()
    except OSError:
        return None


def stop(as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """End the instance and remove every trace of it, also after a crash."""
    folder = runtime_dir(runtime)
    try:
        client.ask(folder / "control.sock", "stop", timeout_s=10)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            try:
                client.ask(folder / "control.sock", "status", timeout_s=2)
            except client.Refused:
                pass  # it is ending: its store is closed already
            except client.Unreachable:
                break
            time.sleep(0.05)
        else:
            raise CannotStop("it was told to stop 15 s ago, and still answers")
        removed: list[str] = []
    except client.Unreachable:
        if os.geteuid() != 0 or sys.platform != "linux":
            raise
        from enforcer.helper.traces import remove_traces

        removed = remove_traces(folder)
        if not removed:
            raise
    render.print_json({"stopped": True, "removed": removed}) if as_json else render.out.print(
        "Stopped." + (f" Removed {len(removed)} traces of a dead instance." if removed else "")
    )


def test(as_json: Json = False, runtime: RuntimeDir = None, state: StateDir = None) -> None:
    """Prove on this machine that enforcement is live: a marked result sent through the real path must not arrive."""
    path = control_socket(runtime)
    found = client.ask(path, "status")
    clean = _through(found, client.ask(path, "selftest", marked=False)["nonce"], 15.0)
    marked = _through(found, client.ask(path, "selftest", marked=True)["nonce"], 3.0)
    held = [row for row in client.ask(path, "escrow.ls", states=["held"]) if row["tool"] == "holdfast_self_test"]
    for row in held:
        client.ask(path, "escrow.deny", id=row["id"], why="holdfast test")
    arrived = marked is not None and "SELF-TEST" in marked
    passed = clean is not None and "Bern" in clean and not arrived and bool(held) and bool(found["enforcing"])
    result = {
        "passed": passed,
        "clean_arrived": clean is not None and "Bern" in clean,
        "marked_arrived": arrived,
        "marked_held": bool(held),
        "enforcing": found["enforcing"],
    }
    if as_json:
        render.print_json(result)
    elif passed:
        render.out.print("[green]Enforcement is live[/]: a clean result came through the gate, a marked one was held.")
    else:
        render.out.print(f"[bold red]Enforcement is NOT proven[/]: {json.dumps(result)}")
    raise typer.Exit(0 if passed else 1)


def _through(found: dict[str, Any], nonce: str, within_s: float) -> str | None:
    """One tools/call through the guarded port, as any client would make it. None where nothing came in time."""
    host = "127.0.0.1"
    if found["netns"] not in ("", "this one"):
        from enforcer.kernel import namespace

        namespace.find(str(found["netns"])).enter()
    call = {"jsonrpc": "2.0", "id": nonce, "method": "tools/call", "params": {"name": "holdfast_self_test", "arguments": {"nonce": nonce}}}
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "x-holdfast-test": nonce,
        "authorization": f"Holdfast-Test {nonce}",
    }
    for scheme in ("http", "https"):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # our own gate: only whether bytes arrive matters
        connection: http.client.HTTPConnection = (
            http.client.HTTPConnection(host, found["port"], timeout=within_s)
            if scheme == "http"
            else http.client.HTTPSConnection(host, found["port"], timeout=within_s, context=context)
        )
        try:
            connection.request("POST", "/holdfast-self-test", json.dumps(call), headers)
            return connection.getresponse().read(65536).decode("utf-8", "replace")
        except TimeoutError:
            return None
        except (OSError, http.client.HTTPException):
            continue
        finally:
            connection.close()
    return None
