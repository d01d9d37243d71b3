"""A twin's OCI bundle (runtime-spec 1.0.2, config.md): its root, its mounts and its bounds.

State is given at call time: the *parent* of each place is a folder of the twin's own, bound with shared propagation, and the call's overlay is mounted on a
subfolder of it. (On the bind's own root it is not seen.) What else lies in that parent is bound beside it, read-only.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from enforcer.sandbox.launcher import ARGUMENTS
from escrow.sandbox.settings import Directory, SandboxSettings, Sqlite, State

MAX_BESIDE = 64
"""Most entries beside a state: each is a mount, and a twin's start takes longer with every one."""
PYTHON = ("usr/bin/python3", "usr/local/bin/python3")
OPEN_FILES = 1024


class CannotBundle(Exception):
    """A twin cannot be made of these settings. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """places: where the twin sees state. parents: the folders that hold them, shortest first. beside: what else those hold, absolute, read-only.

    hidden: folders that exist in the root and that the twin sees empty.
    """

    places: tuple[str, ...]
    parents: tuple[str, ...]
    beside: tuple[str, ...]
    hidden: tuple[str, ...]

    def source(self, folder: Path, place: str) -> Path:
        """Where below a twin's own folder a place of its state is."""
        path = PurePosixPath(place)
        return folder / "state" / str(self.parents.index(str(path.parent))) / path.name


def place(state: State) -> str:
    """The folder that a state takes inside: a database file's own folder, since its journal stands beside it."""
    if isinstance(state, Directory):
        return os.path.normpath(state.at or state.path)
    if isinstance(state, Sqlite):
        return os.path.dirname(os.path.normpath(state.at or state.path))
    return os.path.dirname(os.path.normpath(state.socket))


def layout(settings: SandboxSettings, own: tuple[Path, ...]) -> Layout:
    """What is mounted where. own: Holdfast's folders, never seen inside. CannotBundle where state cannot be given there."""
    root = Path(settings.root)
    if not root.is_dir():
        raise CannotBundle(f"the root {root} is no folder")
    named = {os.path.normpath(path) for path in (*settings.hidden, *(str(path) for path in own))} - {"/"}
    hidden = tuple(sorted((path for path in named if (root / path.lstrip("/")).is_dir()), key=lambda path: (len(path), path)))
    for path in hidden:
        if PurePosixPath(settings.command[0]).is_relative_to(path):
            raise CannotBundle(f"the command lies in {path}, which the twin sees empty: leave it out of `hidden`, or install the server elsewhere")
    places = _places(settings)
    for one in places:
        if str(PurePosixPath(one).parent) == "/":
            raise CannotBundle(f"the state at {one} lies directly below the root, where it cannot be given to a running twin: give it another `at`")
        for other in places:
            if one != other and PurePosixPath(one).is_relative_to(other):
                raise CannotBundle(f"the state at {one} lies inside the state at {other}")
        if any(PurePosixPath(secret).is_relative_to(one) for secret in (str(path) for path in own)):
            raise CannotBundle(f"the state at {one} holds Holdfast's own files")
    parents = tuple(sorted({str(PurePosixPath(one).parent) for one in places}, key=lambda path: (len(path), path)))
    for parent in parents:
        if not (root / parent.lstrip("/")).is_dir():
            raise CannotBundle(f"{parent}, where state is to be seen, is no folder of the root {root}")
    return Layout(places, parents, _beside(root, places, parents, hidden, own), hidden)


def _places(settings: SandboxSettings) -> tuple[str, ...]:
    """A database inside a directory that is state itself has no place of its own."""
    directories = [place(state) for state in settings.state if isinstance(state, Directory)]
    inside = [
        place(state)
        for state in settings.state
        if not (isinstance(state, Sqlite) and any(PurePosixPath(place(state)).is_relative_to(directory) for directory in directories))
    ]
    return tuple(dict.fromkeys(inside))


def _beside(root: Path, places: tuple[str, ...], parents: tuple[str, ...], hidden: tuple[str, ...], own: tuple[Path, ...]) -> tuple[str, ...]:
    """Not what holds Holdfast's own folders: twins' mounts are below those, and no bind without them is allowed (mount(2), EINVAL)."""
    found = []
    for parent in parents:
        if any(PurePosixPath(parent).is_relative_to(path) for path in hidden):
            continue
        for entry in sorted(os.scandir(root / parent.lstrip("/")), key=lambda entry: entry.name):
            path = f"{parent}/{entry.name}"
            shown = entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
            if shown and path not in hidden and not any(PurePosixPath(one).is_relative_to(path) for one in (*places, *parents, *map(str, own))):
                found.append(path)
    if len(found) > MAX_BESIDE:
        raise CannotBundle(f"{len(found)} entries lie beside the state in {', '.join(parents)}: at most {MAX_BESIDE} may; give the state another `at`")
    return tuple(found)


def command(settings: SandboxSettings) -> list[str]:
    """The twin's first process: the server, or, where it speaks HTTP, the launcher that starts it and forwards to it."""
    if settings.transport == "stdio":
        return list(settings.command)
    python = next((f"/{path}" for path in PYTHON if (Path(settings.root) / path).exists()), None)
    if python is None:
        raise CannotBundle("a server that speaks HTTP needs a python3 in its root, for the forwarder inside the twin")
    return [python, *ARGUMENTS, str(settings.port), settings.path, *settings.command]


def root(settings: SandboxSettings, folder: Path) -> str:
    """Where a twin's root is on the host: where it may reach a socket, without any other (`closed_root`)."""
    return str(folder / "root") if settings.sockets else settings.root


def nscd(settings: SandboxSettings) -> str:
    """Where the name service's cache would listen (glibc, nscd/nscd-client.h: /var/run/nscd/socket). In a twin it is a file, so that glibc's look for a
    cache, at every look-up of a user or a host, fails with ENOTDIR: by that alone it is told from other sockets, whose paths the trace does not show.
    """
    return "/run/nscd" if (Path(settings.root) / "var/run").is_symlink() else "/var/run/nscd"


def config(settings: SandboxSettings, laid: Layout, folder: Path) -> dict[str, object]:
    """config.json for a twin whose own folder is `folder`."""
    size = f"size={settings.file_mb}m"
    mounts: list[dict[str, object]] = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    mounts += [{"destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", size]} for path in laid.hidden]
    for number, parent in enumerate(laid.parents):
        mounts.append({"destination": parent, "type": "bind", "source": str(folder / "state" / str(number)), "options": ["rbind", "rw", "nosuid", "nodev"]})
    for path in laid.beside:
        mounts.append(
            {"destination": path, "type": "bind", "source": f"{root(settings, folder).rstrip('/')}{path}", "options": ["bind", "ro", "nosuid", "nodev"]}
        )
    if not any(PurePosixPath(one).is_relative_to(nscd(settings)) for one in laid.places):
        mounts.append({"destination": nscd(settings), "type": "bind", "source": str(folder / "nscd"), "options": ["bind", "ro", "nosuid", "nodev"]})
    bounds = {"RLIMIT_NPROC": settings.processes, "RLIMIT_FSIZE": settings.file_mb << 20, "RLIMIT_CORE": 0, "RLIMIT_NOFILE": OPEN_FILES}
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", **settings.environment}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": command(settings),
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": settings.directory,
            "capabilities": {name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            "noNewPrivileges": True,
            "rlimits": [{"type": name, "hard": value, "soft": value} for name, value in bounds.items()],
        },
        "root": {"path": root(settings, folder), "readonly": True},
        "hostname": "twin",
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }


def write(settings: SandboxSettings, laid: Layout, folder: Path) -> None:
    """Make a twin's folder: config.json, a folder for each parent of its state, one for its traces."""
    folder.mkdir(mode=0o700, parents=True)
    (folder / "log").mkdir()
    (folder / "nscd").touch()
    for number in range(len(laid.parents)):
        (folder / "state" / str(number)).mkdir(parents=True)
    for one in laid.places:
        laid.source(folder, one).mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(settings, laid, folder)))
