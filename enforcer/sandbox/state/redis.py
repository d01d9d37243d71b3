"""A Redis server's copy: its RDB file, taken as a replica takes it, loaded by a server of the twin's own.

That server runs on the host, in a network namespace without interfaces, as nobody, and listens on one Unix socket, which the twin gets. It loads
data that the guarded server wrote: it has no more rights than that needs. The client is a dozen lines of RESP (redis.io/docs/reference/protocol-spec):
three commands and one bulk reply do not need a package. It ends with `freezing.discard`, with the control group of the twin that is given it, and with
the thread that started it, where the keeper is killed.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from enforcer.sandbox.state.frozen import NotFrozen
from escrow.sandbox.settings import Redis

MAX_RDB = 1 << 30
_NOBODY = 65534
_MAX_LINE = 1024
_MEMORY = 4 << 30
"""Bytes of address space of the twin's own server."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PAUSE_S = 0.002
"""Between two looks at whether it answers."""


class _Client:
    """Reads with a buffer, so that what follows a line is not lost."""

    def __init__(self, connected: socket.socket, until: float) -> None:
        self._socket, self._until, self._rest = connected, until, b""

    def _more(self) -> bytes:
        left = self._until - time.monotonic()
        if left <= 0:
            raise NotFrozen("Redis did not give its data in time")
        self._socket.settimeout(left)
        part = self._socket.recv(1 << 20)
        if not part:
            raise NotFrozen("Redis closed the connection")
        return part

    def send(self, *words: str) -> None:
        self._socket.sendall(b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)]))

    def line(self) -> bytes:
        """Without empty lines: a master sends those while it saves."""
        while True:
            while b"\n" not in self._rest:
                if len(self._rest) > _MAX_LINE:
                    raise NotFrozen("Redis sent a line that is too long")
                self._rest += self._more()
            line, _, self._rest = self._rest.partition(b"\n")
            if line.strip():
                return line.strip()

    def close(self) -> None:
        self._socket.close()

    def ask(self, *words: str) -> bytes:
        self.send(*words)
        return self.line()

    def bulk(self, head: bytes, target: int) -> None:
        if not head.startswith(b"$") or not head[1:].isdigit() or int(head[1:]) > MAX_RDB:
            raise NotFrozen("Redis did not give its data")
        left = int(head[1:])
        while left:
            part = (self._rest or self._more())[:left]
            self._rest = self._rest[len(part) :]
            os.write(target, part)
            left -= len(part)


def _connect(url: str, until: float) -> _Client:
    parts = urlsplit(url)
    patience = max(0.001, until - time.monotonic())
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(patience)
        connected.connect(unquote(parts.path))
    except BaseException:
        connected.close()
        raise
    return _Client(connected, until)


def _introduce(client: _Client, url: str) -> None:
    parts = urlsplit(url)
    if parts.password is not None:
        words = ("AUTH", unquote(parts.username), unquote(parts.password)) if parts.username else ("AUTH", unquote(parts.password))
        if client.ask(*words) != b"+OK":
            raise NotFrozen("Redis refused the password")


def copy(url: str, target: Path, until: float) -> None:
    """The RDB file, into the new file `target`. until: on `time.monotonic()`. Raises NotFrozen.

    SYNC without `REPLCONF capa eof` makes the master save at once; with it, it waits for further replicas (`repl-diskless-sync-delay`).
    """
    try:
        client = _connect(url, until)
        try:
            _introduce(client, url)
            with open(target, "xb") as file:
                client.bulk(client.ask("SYNC"), file.fileno())
        finally:
            client.close()
    except OSError as error:
        raise NotFrozen(f"Redis could not be copied: {error.strerror or error}") from None


def start(state: Redis, folder: Path, until: float) -> int:
    """The twin's own server on a copy in the new folder `folder`, its socket in `folder/socket`; its process, of which the caller is the parent.

    Raises NotFrozen, and then nothing runs.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise NotFrozen("redis-server is not installed")
    data, place = folder / "data", folder / "socket"
    folder.mkdir(0o711)
    data.mkdir(0o700)
    place.mkdir(0o755)
    copy(state.url, data / "dump.rdb", until)
    for path in (data, data / "dump.rdb", place):
        os.chown(path, _NOBODY, _NOBODY)
    command = ["unshare", "--net", "--", "prlimit", f"--as={_MEMORY}", "--core=0", "--", "setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}"]
    command += ["--clear-groups", "--pdeathsig=KILL", "--no-new-privs", "--bounding-set=-all", "--", program, "-", "--daemonize", "no"]
    name = os.path.basename(state.socket)
    if not _NAME.fullmatch(name):
        raise NotFrozen("the socket's name has a letter that Redis's settings cannot hold")
    # From its own folder, as nobody may not walk the folders above.
    settings = f'port 0\nunixsocket ../socket/{name}\nunixsocketperm 777\ndir .\ndbfilename dump.rdb\nsave ""\nappendonly no\nenable-debug-command no\n'
    process = subprocess.Popen(
        command, cwd=data, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env={"PATH": os.defpath}
    )
    try:
        assert process.stdin is not None
        with process.stdin as given:
            given.write(settings.encode())
        _await(process, place / name, until)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = 0  # the caller waits for it by its number
    return process.pid


def _await(process: subprocess.Popen[bytes], listens: Path, until: float) -> None:
    while True:
        if process.poll() is not None:
            raise NotFrozen("the twin's own Redis could not read the copy")
        if time.monotonic() > until:
            raise NotFrozen("the twin's own Redis did not start in time")
        try:
            client = _connect(f"unix://{listens}", until)
        except OSError:
            time.sleep(_PAUSE_S)
            continue
        try:
            if client.ask("PING") == b"+PONG":
                return
        except OSError:
            pass
        finally:
            client.close()
        time.sleep(_PAUSE_S)
