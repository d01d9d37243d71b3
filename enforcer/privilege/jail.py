"""The file system of a confined process: a new root with nothing in it but what is named here, read-only.

The installation and the state folder may lie below folders that only root can enter, and the daemon's own user can reach neither;
so each is bound into the new root: the installation at its own path, the state at /state, the one place that can be written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from enforcer.privilege import libc

MOUNT_POINT = Path("/run/holdfast/root")
"""Where a confined process puts its new root together, in a mount namespace of its own. Empty for everybody else."""

STATE = Path("/state")
"""The state folder as the daemon sees it."""

_SYSTEM = (
    "/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64",  # shared libraries and Python
    "/usr/share/zoneinfo", "/etc/localtime",
    "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/usr/share/ca-certificates",  # to verify a server's TLS
    "/dev/null", "/dev/urandom",
)  # fmt: skip
_RESOLVER = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf")
"""What the C library reads to look a name up (resolver(3), nsswitch.conf(5), host.conf(5), gai.conf(5)), each time anew."""

_PACKAGES = ("enforcer", "escrow")
_TMP_OPTIONS = "mode=1777,size=64m"
_READ_ONLY = libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | libc.MS_NOSUID
_PLAIN = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC


def prepare() -> None:
    """Once, by the helper."""
    MOUNT_POINT.mkdir(mode=0o700, parents=True, exist_ok=True)


def own_namespaces() -> None:
    """Leave the mount and network namespaces of the machine; while the process has one thread."""
    libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWNET)
    libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)


def enter_empty() -> None:
    """A root without a single file."""
    _new_root()
    _become_root()


def enter_resolving() -> None:
    """A root with copies of the resolver's few files, as they are now, and nothing else."""
    found = {path: path.read_bytes() for path in map(Path, _RESOLVER) if path.is_file()}
    _new_root()
    for path, content in found.items():
        _inside(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _inside(path).write_bytes(content)
    _become_root()


def enter(state_dir: Path) -> None:
    """A root with the installation read-only, /state, and an empty /tmp."""
    _new_root()
    # First, so that an installation that itself lies below /tmp is bound into it.
    _inside(Path("/tmp")).mkdir()  # inside the new root
    libc.mount("tmpfs", str(_inside(Path("/tmp"))), "tmpfs", _PLAIN, _TMP_OPTIONS)
    bound: list[Path] = []
    for source in _sources():
        if not any(source.is_relative_to(done) for done in bound):
            bound.append(source)
            _bind(source, source, libc.MS_NODEV if not source.is_relative_to("/dev") else 0)
    _bind_at(state_dir, STATE)
    libc.mount("none", str(_inside(STATE)), None, libc.MS_REMOUNT | libc.MS_BIND | _PLAIN)
    _become_root()


def _new_root() -> None:
    # Not NODEV: /dev/null is bound into it. Nothing else in it is a device, and it is read-only in the end.
    libc.mount("tmpfs", str(MOUNT_POINT), "tmpfs", libc.MS_NOSUID | libc.MS_NOEXEC, "mode=0755,size=1m")


def _become_root() -> None:
    os.chdir(MOUNT_POINT)
    libc.pivot_root(".", ".")  # pivot_root(2): the old root lies over the new one, and is taken away
    libc.umount(".", libc.MNT_DETACH)
    os.chdir("/")
    libc.mount("none", "/", None, libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | libc.MS_NOSUID | libc.MS_NOEXEC)


def _sources() -> Iterator[Path]:
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink() and path.is_dir():  # /lib -> usr/lib
            target = _inside(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(os.readlink(path))
        elif path.exists():
            yield path
    packages = [Path(str(sys.modules[name].__file__)).resolve().parent for name in _PACKAGES if name in sys.modules]
    yield from packages
    for entry in sys.path:
        path = Path(entry).resolve()
        # A checkout on the path is more than its packages: its neighbours are nobody's business.
        if entry and path.is_dir() and not any(package.parent == path for package in packages):
            yield path


def _inside(path: Path) -> Path:
    return MOUNT_POINT / path.relative_to("/")


def _bind(source: Path, at: Path, flags: int) -> None:
    _bind_at(source, at)
    libc.mount("none", str(_inside(at)), None, _READ_ONLY | flags)


def _bind_at(source: Path, at: Path) -> None:
    target = _inside(at)
    if source.is_dir():
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
    else:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        target.touch()
    libc.mount(str(source), str(target), None, libc.MS_BIND)
