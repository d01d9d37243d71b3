"""The policy: one TOML document, safe without any file.

Pure: `load` takes text. Unknown keys are errors, so that a misspelt safeguard is never silently absent.
"""

from __future__ import annotations

import fnmatch
import hashlib
import tomllib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from escrow.scanner_settings import ScannerSettings


class PolicyError(ValueError):
    """The policy cannot be used. `str()` names what and where, a line each."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Table):
    """name: how the guarded server is called in items and views; empty: `port-P`, or the upstream's address."""

    name: str = Field("", max_length=64, pattern=r"^[A-Za-z0-9._:-]*$")


class Escrow(_Table):
    """claim_after_s: a finished, held result is answered with a claim this long after its request came.

    hold_for_s: how long an item waits for a decision, and how long a denial stands. ping_s: between keep-alives on a waiting stream.
    """

    claim_after_s: float = Field(45.0, gt=0, le=3600)
    hold_for_s: float = Field(3600.0, gt=0, le=30 * 86400)
    ping_s: float = Field(15.0, gt=0, le=60)
    max_items: int = Field(20_000, ge=1)


class Judging(_Table):
    """require: judges that must say CLEAN. on_hostile: hold for a person, or refuse at once."""

    require: frozenset[Literal["scanner"]] = frozenset({"scanner"})
    on_hostile: Literal["hold", "refuse"] = "hold"


class Bounds(_Table):
    """What a peer may make Holdfast keep in memory, in bytes, and how long it may stay silent, in seconds."""

    head_bytes: int = Field(32 * 1024, ge=1024, le=1 << 20)
    request_bytes: int = Field(16 << 20, ge=1024, le=1 << 30)
    result_bytes: int = Field(64 << 20, ge=1024, le=1 << 30)
    connections: int = Field(4096, ge=1, le=1 << 20)
    head_s: float = Field(30.0, gt=0)
    idle_s: float = Field(3600.0, gt=0)
    connect_s: float = Field(10.0, gt=0)


class Tls(_Table):
    """cert, key: PEM files for clients. upstream_ca: PEM file the server's certificate must chain to; without it, the system's."""

    cert: str
    key: str
    upstream_ca: str | None = None


class Bearer(_Table):
    """How to verify bearer tokens (JWT, RFC 7519): a PEM public key file, and what the token must say."""

    key_file: str
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA", "PS256"], ...] = ("RS256", "ES256", "EdDSA")
    issuer: str
    audience: str


class PrincipalRules(_Table):
    """require = "credential" turns away callers that only an address identifies."""

    require: Literal["any", "credential"] = "any"
    bearer: Bearer | None = None


class Policy(_Table):
    """The whole document. `passthrough` names what passes without being MCP, as "METHOD /path-glob"."""

    fail: Literal["closed", "open"] = "closed"
    passthrough: tuple[str, ...] = ("GET /.well-known/*", "GET /health*")
    server: Server = Server()
    escrow: Escrow = Escrow()
    judging: Judging = Judging()
    bounds: Bounds = Bounds()
    tls: Tls | None = None
    principal: PrincipalRules = PrincipalRules()
    scanner: ScannerSettings = ScannerSettings()

    @property
    def version(self) -> str:
        """First 16 hex digits of the SHA-256 of the policy's own JSON: what verdicts and approvals name."""
        dumped = self.model_dump(mode="json")
        dumped["judging"]["require"] = sorted(dumped["judging"]["require"])
        return hashlib.sha256(repr(sorted(dumped.items())).encode()).hexdigest()[:16]

    def passes(self, method: str, path: str) -> bool:
        """Whether a response to this request may be something else than MCP. The query is no part of the path."""
        bare = path.partition("?")[0]
        climbs = ".." in bare.replace("%2e", ".").replace("%2E", ".")  # servers decode before they resolve
        return not climbs and any(method == verb and fnmatch.fnmatchcase(bare, glob) for verb, _, glob in (entry.partition(" ") for entry in self.passthrough))


def load(text: str, source: str = "policy") -> Policy:
    """Read a policy document.

    Raises:
        PolicyError: no TOML (names line and column), an unknown key, or a value out of range (names the key).
    """
    try:
        return Policy.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{source}: {error}") from None
    except ValidationError as error:
        lines = [f"{source}: {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors()]
        raise PolicyError("\n".join(lines)) from None
