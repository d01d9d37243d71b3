"""`[servers.NAME.sandbox]`: a server's twin. How it is started, on what root and what state, and what it may use.

The policy decides with `[judging] judges` or a `[[rule]]` which calls it judges; with `require` whether it must agree.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Path = Annotated[str, Field(pattern=r"^/", max_length=4096)]
"""An absolute path."""

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]
"""The name of an environment variable (POSIX, "Environment Variable Definition")."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Directory(_Table):
    """A directory, copied at the moment of the call (reflink where the file system has it). at: where the twin sees it; default: the same path."""

    kind: Literal["directory"] = "directory"
    path: Path
    at: Path | None = None


class Sqlite(_Table):
    """A SQLite database file, copied by the backup API. at: as in `Directory`."""

    kind: Literal["sqlite"]
    path: Path
    at: Path | None = None


class Redis(_Table):
    """A Redis server, copied as an RDB file into a server of the twin's own. socket: where the twin finds its copy.

    url: unix://[USER:PASSWORD@]/PATH, as whoever copies it has no network.
    """

    kind: Literal["redis"]
    url: str = Field(max_length=1024, pattern=r"^unix://")
    socket: Path


class Postgres(_Table):
    """A PostgreSQL database, copied from a template or a dump. url: of the real one. socket: the folder where the twin finds its copy's socket."""

    kind: Literal["postgres"]
    url: str = Field(max_length=1024)
    socket: Path


State = Annotated[Directory | Sqlite | Redis | Postgres, Field(discriminator="kind")]


class SandboxSettings(_Table):
    """command, environment, directory: the server's process inside the twin; nothing of Holdfast's own environment is passed.

    transport: how it speaks MCP. port, path: of its endpoint inside the twin, where that is HTTP.
    root: a directory that is the twin's read-only root; "/" is the host's own. hidden: folders below it that the twin sees empty.
    state: what calls change, frozen and given anew to each.
    pool: twins restored ahead of time. memory_mb, processes, file_mb: most of each twin's. run_ms: how long a call may take in the twin.
    snapshot_ms: how long freezing may keep the real request waiting; what takes longer makes the run UNSURE.
    answer_bytes: the largest answer read.
    revert: whether a clone of the state is kept before an irreversible call goes to the real server, so that a denied one can be put back.
    """

    command: tuple[str, ...] = Field(min_length=1, max_length=256)
    environment: dict[Variable, str] = Field(default_factory=dict, max_length=256)
    directory: Path = "/"
    transport: Literal["stdio", "http"] = "stdio"
    port: int = Field(8000, ge=1, le=65535)
    path: Path = "/mcp"
    root: Path = "/"
    hidden: tuple[Path, ...] = ("/root", "/home", "/run", "/tmp", "/var/lib/holdfast", "/etc/holdfast")
    state: tuple[State, ...] = Field((), max_length=16)
    pool: int = Field(2, ge=0, le=64)
    memory_mb: int = Field(512, ge=64, le=65536)
    processes: int = Field(64, ge=1, le=4096)
    file_mb: int = Field(256, ge=1, le=65536)
    run_ms: int = Field(10_000, ge=10, le=600_000)
    snapshot_ms: int = Field(250, ge=1, le=60_000)
    answer_bytes: int = Field(16 << 20, ge=1024, le=1 << 30)
    revert: bool = False

    @model_validator(mode="after")
    def _can_be_put_back(self) -> SandboxSettings:
        if self.revert and not self.state:
            raise ValueError("revert: there is no state that could be put back")
        if self.revert and (other := next((state.kind for state in self.state if state.kind not in ("directory", "sqlite")), None)) is not None:
            raise ValueError(f"revert: a {other} state cannot be put back, only directories and SQLite databases")
        return self

    @property
    def sockets(self) -> bool:
        """Whether the twin reaches a database's copy over a Unix socket."""
        return any(isinstance(state, Redis | Postgres) for state in self.state)

    @property
    def changing(self) -> tuple[str, ...]:
        """Paths in the twin that calls change: its state's directories, and its databases' files with those that SQLite puts beside them."""
        found: list[str] = []
        for state in self.state:
            match state:
                case Directory():
                    found.append(state.at or state.path)
                case Sqlite():
                    found += [(state.at or state.path) + suffix for suffix in ("", "-journal", "-wal", "-shm")]
        return tuple(found)
