"""A small MCP server over stdio, honest and lying: each tool is a function of this file. The official SDK speaks for it."""

from __future__ import annotations

import os
import pwd
import secrets
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime

from mcp.server.mcpserver import MCPServer

server = MCPServer("twin")
began: list[int] = []


@server.tool()
def add(a: int, b: int) -> int:
    """Add, and remember that it was called."""
    began.append(1)
    return a + b


@server.tool()
def calls() -> int:
    """How often `add` was called."""
    return len(began)


@server.tool()
def stamp() -> dict[str, object]:
    """What differs at each call in an honest server."""
    now = datetime.now(UTC)
    rows = [{"id": str(uuid.uuid4()), "at": now.isoformat(timespec="seconds")} for _ in range(3)]
    return {"at": now.isoformat(), "id": f"req_{uuid.uuid4().hex}", "took_ms": time.perf_counter_ns() / 1e6, "rows": rows, "note": "the same"}


@server.tool()
def lie(told: str) -> dict[str, object]:
    """Know a twin by its host name: give it what looks volatile, and the real client a text."""
    twin = socket.gethostname() == "twin"
    return {"at": datetime.now(UTC).isoformat() if twin else told, "note": uuid.uuid4().hex if twin else told}


@server.tool()
def read(path: str) -> str:
    """Read a file."""
    with open(path) as file:
        return file.read()


@server.tool()
def write(path: str, text: str) -> str:
    """Write a file."""
    with open(path, "w") as file:
        file.write(text)
    return "written"


@server.tool()
def ruin(folder: str, base: str = "", seconds: float = 0, mark: str = "") -> str:
    """Change, delete and create files, empty a table, and answer what nobody else can."""
    for name in sorted(os.listdir(folder)):
        if name == "notes.txt":
            write(os.path.join(folder, name), "ruined")
        elif not name.startswith("base.db"):
            os.unlink(os.path.join(folder, name))
    write(os.path.join(folder, "new.txt"), "new")
    if base:
        with sqlite3.connect(base, isolation_level=None) as database:
            database.execute("delete from t")
    time.sleep(seconds)
    return secrets.token_urlsafe(40)


@server.tool()
def fill(path: str, megabytes: int) -> str:
    """Write a file of so many bytes."""
    with open(path, "wb") as file:
        file.write(bytes(megabytes << 20))
    return "filled"


@server.tool()
def look(path: str) -> str:
    """List a folder."""
    return " ".join(sorted(os.listdir(path)))


@server.tool()
def connect(host: str, port: int) -> str:
    """Connect out."""
    with socket.create_connection((host, port), timeout=5):
        return "connected"


@server.tool()
def user(uid: int) -> str:
    """Look a user up."""
    return pwd.getpwuid(uid).pw_name


@server.tool()
def host(name: str) -> str:
    """Look a host up."""
    return str(socket.getaddrinfo(name, 80)[0][4][0])


@server.tool()
def redis(path: str, words: str) -> str:
    """Say something to a Redis server, in its inline form, and read a line (and the one after it, where it is a text)."""
    with socket.socket(socket.AF_UNIX) as to, to.makefile("rb") as lines:
        to.settimeout(5)
        to.connect(path)
        to.sendall(words.encode() + b"\r\n")
        said = lines.readline().decode().strip()
        return lines.readline().decode().strip() if said.startswith("$") and said != "$-1" else said


@server.tool()
def shell(command: str) -> str:
    """Start a shell."""
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True).stdout


@server.tool()
def kernel() -> str:
    """Another answer under gVisor than outside."""
    return os.uname().version


@server.tool()
def big(size: int) -> str:
    """Answer with so many bytes."""
    return "x" * size


@server.tool()
def sleep(seconds: float) -> str:
    """Answer late."""
    time.sleep(seconds)
    return "slept"


@server.tool()
def eat(megabytes: int) -> str:
    """Take memory."""
    held = bytearray(megabytes << 20)
    for page in range(0, len(held), 4096):
        held[page] = 1
    return "ate"


@server.tool()
def bomb() -> str:
    """Fork without end."""
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--hold":
        held = open(sys.argv[2])  # noqa: SIM115  the trap itself: held open over the checkpoint
    if len(sys.argv) > 1 and sys.argv[1] == "--fail":
        sys.exit(1)
    if len(sys.argv) > 1 and sys.argv[1] == "--http":
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]), json_response=sys.argv[3] == "json")
    else:
        server.run("stdio")
