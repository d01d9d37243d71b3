"""What a twin's run did, from gVisor's strace log: the calls' entries, so that an attempt counts whether it succeeded or not.

The twin wrote much of what stands there (`strace.py` says how a line is taken). What cannot be read makes the effects incomplete, and never raises.

What the log does not tell, and what becomes of it: a Unix socket's path (a connection that succeeded is to the twin's own or to one that was
mounted, as there are no others: inside; one that failed: incomplete, but with ENOTDIR, as then its path leads below a file, where nobody listens, or
to the cache of names, which a twin does not have); what was sent by sendto and sendmmsg (names are those looked up by
write); where sendmsg and sendmmsg went on a socket that is not connected (incomplete). gVisor reads a call's path once for the log and once
for the call: a process that changes it between the two is not seen in that line, but where it then reads the file, by the file's own path.
"""

from __future__ import annotations

import errno
import ipaddress
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.sandbox.strace import Call, Unreadable, is_headed, parse, unquoted, vector
from escrow.sandbox.effects import Change, Connect, Effects, Execute, Write

# fmt: off
SYSCALLS = (
    "openat", "mkdirat", "unlinkat", "renameat", "renameat2", "linkat", "symlinkat", "fchmodat", "truncate", "execve", "execveat", "connect", "sendto",
    "sendmsg", "sendmmsg", "write", "read", "pread64", "getdents64", "chdir", "fchdir", "chroot", "pivot_root", "mount", "setns", "unshare",
)
LEGACY_SYSCALLS = ("open", "creat", "mkdir", "rmdir", "unlink", "rename", "link", "symlink", "chmod")
# fmt: on
"""For `--strace-syscalls`; the second only where `uname -m` is x86_64: elsewhere runsc refuses to start with them."""

MAX_BYTES = 64 << 20
MAX_LINE = 256 << 10
MAX_EFFECTS = 4096
MAX_REASONS = 16
MAX_TEXT = 4096
"""Bytes of one path or argument."""

_ADDRESS = re.compile(rb"Family: AF_INET6?, Addr: ([0-9a-f.:]{2,45}), Port: ([0-9]{1,5})")
_NO_FAMILY = re.compile(rb"Family: (AF_[A-Z]+|0x[0-9a-f]+|[0-9]+)(?:, .*)?")
_AT_FDCWD = 0xFFFFFF9C
_CHANGES_ROOT = ("chroot", "pivot_root", "mount", "setns", "unshare", "execveat")
_MADE = ("mkdir", "mkdirat", "creat", "symlink", "symlinkat", "link", "linkat")
_GONE = ("rmdir", "unlink", "unlinkat")


def query_name(datagram: bytes) -> str:
    """The name that a DNS query asks for (RFC 1035, 4.1.2), "" of anything else. One name, no compression: queries have none."""
    if not 17 <= len(datagram) <= 512 or datagram[2] & 0x80 or datagram[4:6] != b"\0\1":
        return ""
    labels, at = [], 12
    while at < len(datagram) and (size := datagram[at]):
        label = datagram[at + 1 : at + 1 + size]
        if size > 63 or len(label) != size or not re.fullmatch(rb"[A-Za-z0-9_-]+", label) or at > 12 + 255:
            return ""
        labels.append(label.decode())
        at += 1 + size
    return ".".join(labels).lower() if at + 5 <= len(datagram) else ""


@dataclass(slots=True)
class _Reader:
    """Takes lines, gives effects. The first of each kind is kept, in the log's order."""

    reads: dict[str, None] = field(default_factory=dict)
    writes: dict[str, Write] = field(default_factory=dict)
    connects: dict[Connect, None] = field(default_factory=dict)
    executes: dict[Execute, None] = field(default_factory=dict)
    reasons: dict[str, None] = field(default_factory=dict)
    directories: dict[int, str] = field(default_factory=dict)
    """Process → its working directory, where a call has shown it since it last changed."""
    unix: set[tuple[int, int]] = field(default_factory=set)
    """Tasks within a call to a Unix socket's address."""
    peers: dict[tuple[int, bytes], Connect] = field(default_factory=dict)
    """Process and socket → the port 53 that it is connected to."""

    def doubt(self, why: str) -> None:
        if len(self.reasons) < MAX_REASONS:
            self.reasons[why] = None

    def take(self, line: bytes) -> None:
        try:
            call = parse(line)
            if call is not None:
                self._left(call) if call.edge == "exit" else self._entered(call)
        except Unreadable as why:
            self.doubt(str(why))
        if len(self.reads) + len(self.writes) + len(self.connects) + len(self.executes) > MAX_EFFECTS:
            raise OverflowError

    def _text(self, raw: bytes) -> str:
        if len(raw) > MAX_TEXT:
            raise Unreadable("a path or argument that is too long")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise Unreadable("a path or argument that is not UTF-8") from None

    def _folder(self, raw: bytes) -> str | None:
        """Of a descriptor's text: `AT_FDCWD /tmp`, `0x3 /etc`, `0x4 socket:[1]`."""
        path = self._text(raw.partition(b" ")[2])
        return path if path.startswith("/") else None

    def _path(self, call: Call, key: str = "path") -> str:
        path = self._text(call.fields[key])
        if path.startswith("/"):
            return _normal(path)
        process = call.task[0]
        folder = self._second(call) if key == "to" else self._folder(call.fields["fd"]) if "fd" in call.fields else self.directories.get(process)
        if folder is None:
            raise Unreadable("a path relative to a folder that the trace does not show")
        return _normal(posixpath.join(folder, path))

    def _second(self, call: Call) -> str | None:
        """The folder of a call's second path: a bare number, known where it is the working directory or the first path's."""
        second = call.fields.get("dir2", b"AT_FDCWD")
        if second.startswith(b"AT_FDCWD") or int(second, 16) & 0xFFFFFFFF == _AT_FDCWD:
            return self.directories.get(call.task[0])
        first = call.fields.get("fd", b"")
        return self._folder(first) if first.startswith(second + b" ") else None

    def _entered(self, call: Call) -> None:
        if call.fields.get("fd", b"").startswith(b"AT_FDCWD ") and (folder := self._folder(call.fields["fd"])) is not None:
            self.directories[call.task[0]] = folder
        name = call.name
        if name in ("open", "openat"):
            self._opened(call)
        elif name in ("read", "pread64", "getdents64"):
            if (path := self._folder(call.fields["fd"])) is not None and (path := _normal(path)) not in self.writes:
                self.reads[path] = None
        elif name == "execve":
            arguments = tuple(self._text(part) for part in vector(call.fields["argv"]))
            self.executes[Execute(self._path(call), arguments)] = None
        elif name in ("connect", "sendto"):
            self._addressed(call)
        elif name in ("write", "sendmsg", "sendmmsg"):
            self._sent(call)
        elif name in ("chdir", "fchdir"):
            self.directories.pop(call.task[0], None)
        elif name in _MADE:
            self._wrote(self._path(call, "to" if "to" in call.fields else "path"), Change.CREATED)
        elif name in _GONE:
            self._wrote(self._path(call), Change.DELETED)
        elif name in ("rename", "renameat", "renameat2"):
            self._wrote(self._path(call), Change.DELETED)
            self._wrote(self._path(call, "to"), Change.CREATED)
        elif name in ("chmod", "fchmodat", "truncate"):
            self._wrote(self._path(call), Change.CHANGED)
        elif name in _CHANGES_ROOT:
            self.doubt(f"{name}: what paths mean afterwards is not known")

    def _wrote(self, path: str, change: Change) -> None:
        self.writes[path] = Write(path, change)

    def _opened(self, call: Call) -> None:
        flags = call.fields["flags"].split(b"|")
        path = self._path(call)
        if b"O_WRONLY" in flags or b"O_RDWR" in flags or b"O_CREAT" in flags or b"O_TRUNC" in flags or b"O_TMPFILE" in flags:
            self._wrote(path, Change.CREATED if b"O_EXCL" in flags else Change.CHANGED)
        elif b"O_RDONLY" not in flags and b"O_PATH" not in flags:
            raise Unreadable("a file opened in a way that is not known")
        if b"O_WRONLY" not in flags:
            self.reads[path] = None

    def _addressed(self, call: Call) -> None:
        address = call.fields.get("sockaddr")
        if address is None:
            return  # on a socket that is connected
        if (match := _ADDRESS.fullmatch(address)) is not None:
            try:
                ip = ipaddress.ip_address(match[1].decode())
            except ValueError:
                raise Unreadable("an address in no known form") from None
            mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped else ip
            found = Connect(str(mapped), int(match[2]), inside=mapped.is_loopback or mapped.is_unspecified)
            self.connects[found] = None
            if found.port == 53 and call.name == "connect":
                self.peers[(call.task[0], call.fields["fd"])] = found
            return
        family = _NO_FAMILY.fullmatch(address)
        if family is not None and family[1] == b"AF_UNIX":
            self.unix.add(call.task)
        elif family is None or family[1] != b"AF_NETLINK":
            raise Unreadable("an address of a family that the trace does not show")

    def _left(self, call: Call) -> None:
        if call.name in ("connect", "sendto") and call.task in self.unix:
            self.unix.discard(call.task)
            if call.errno not in (None, errno.ENOTDIR):  # of the latter see `bundle.nscd`
                self.doubt("a Unix socket that it could not reach: the trace does not show its path")

    def _sent(self, call: Call) -> None:
        if call.name == "write":
            if (peer := self.peers.get((call.task[0], call.fields["fd"]))) is not None and (name := query_name(unquoted(call.fields.get("data", b'""')))):
                self.connects[Connect(peer.address, peer.port, name, peer.inside)] = None
        else:
            self.doubt(f"{call.name}: the trace does not show where it went")

    def finished(self) -> Effects:
        if self.unix:
            self.doubt("a connection to a Unix socket that had not ended")
        return Effects(tuple(self.reads), tuple(self.writes.values()), tuple(self.connects), tuple(self.executes), tuple(self.reasons))


def _normal(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")


def decode(log: bytes) -> Effects:
    """The effects in one log. Total: raises nothing, whatever the bytes are."""
    reader = _Reader()
    if len(log) > MAX_BYTES:
        reader.doubt("the trace is longer than what is read of it")
        log = log[:MAX_BYTES]
    if log and not log.endswith(b"\n"):
        reader.doubt("the trace ends within a line")
    traced = False
    try:
        for line in _lines(log):
            if len(line) > MAX_LINE:
                reader.doubt("a line of the trace is too long")
            elif is_headed(line):
                traced = b" strace.go:" in line[:128]
                reader.take(line)
            elif traced:
                reader.doubt("a path or argument with a newline")
    except OverflowError:
        reader.doubt("more effects than are kept")
    return reader.finished()


def _lines(log: bytes) -> Iterator[bytes]:
    start = 0
    while (end := log.find(b"\n", start)) >= 0:
        yield log[start:end]
        start = end + 1


def read(path: Path, since: int = 0) -> Effects:
    """Of the file that `--debug-log` names for the sandbox's boot. since: its size when the call began. What cannot be read is incomplete."""
    try:
        with path.open("rb") as file:
            file.seek(since)
            return decode(file.read(MAX_BYTES + 1))
    except OSError as error:
        return Effects(incomplete=(f"the trace cannot be read: {error.strerror or error}",))
