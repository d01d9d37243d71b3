"""The tables of a policy and their keys, each with its safe default.

Unknown keys are errors, so that a misspelt safeguard is never silently absent.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from escrow.sandbox.settings import SandboxSettings

Judge = Literal["scanner", "jury", "sandbox"]
"""Judges that a policy can name."""

Required = Literal["scanner", "sandbox"]
"""Judges that can be required. The jury speaks on the gray band only: requiring it would hold everything else."""

Judges = Annotated[frozenset[Judge], PlainSerializer(sorted)]
RequiredJudges = Annotated[frozenset[Required], PlainSerializer(sorted)]
Unclean = Literal["hold", "refuse", "pass"]
Taint = Literal["hold", "note", "off"]
OutgoingChoice = Literal["hold", "refuse", "note", "off"]
Glob = Annotated[str, Field(min_length=1, max_length=256)]
Globs = Annotated[tuple[Glob, ...], Field(max_length=1000)]
ToolClass = Literal["read-only", "reversible", "irreversible"]
When = Literal["alongside", "before"]
Outside = Literal["hold", "scanner-only"]
Session = Literal["fresh", "replay"]
ServerName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_:-]+$")]
"""A guarded server's name, as the key of a table. Without dots, which would part it: `[server] name` gives one to a server known by its address."""

ClaimAfterS = Annotated[float, Field(gt=0, le=3600)]
HoldForS = Annotated[float, Field(gt=0, le=30 * 86400)]
MessageBytes = Annotated[int, Field(ge=1024, le=1 << 30)]


class Table(BaseModel):
    """What every table of the policy is."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True)


class Server(Table):
    """name: how the guarded server is called in items and views; empty: `port-P`, or the upstream's address."""

    name: str = Field("", max_length=64, pattern=r"^[A-Za-z0-9._:-]*$")


class ServerTable(Table):
    """`[servers.NAME]`: what is known of one server. sandbox: its twin; without it none runs."""

    sandbox: SandboxSettings | None = None


class Escrow(Table):
    """claim_after_s: a finished, held result is answered with a claim this long after its request came.

    hold_for_s: how long an item waits for a decision, and how long a denial stands. ping_s: between keep-alives on a waiting stream.
    """

    claim_after_s: ClaimAfterS = 45.0
    hold_for_s: HoldForS = 3600.0
    ping_s: float = Field(15.0, gt=0, le=60)
    max_items: int = Field(20_000, ge=1)


class Judging(Table):
    """Who judges, and what follows.

    judges: who is asked. require: who of them must say CLEAN.
    on_hostile, on_unsure: hold for a person, refuse at once, or (with `trial`) pass, recording what would have been.
    trial: "pass" is meant; without it "pass" is an error.
    taint: what is done about an address, URL, account or token in a call's arguments that only a tool's result brought into the session.
    outgoing: what is done about a call whose arguments are not clean; "note" records and passes, "off" does not judge them.

    The rest is for the judge "sandbox". tool_class: what a call can do to the world; the server's annotations say nothing here.
    when: the twin runs before the real call, or alongside; None: before it where the class is irreversible.
    outside: what follows where the twin stopped at the network and at nothing else. session: a fresh twin each, or one that follows a session's calls.
    reads, writes, connects, executes: globs of what a run may do, in place of the class's defaults (None).
    volatile: globs of JSON pointers into an answer, of places that may differ.
    """

    judges: Judges = frozenset({"scanner", "jury"})
    require: RequiredJudges = frozenset({"scanner"})
    on_hostile: Unclean = "hold"
    on_unsure: Unclean = "hold"
    trial: bool = False
    taint: Taint = "hold"
    outgoing: OutgoingChoice = "hold"
    tool_class: ToolClass = Field("irreversible", alias="class")
    when: When | None = None
    outside: Outside = "hold"
    session: Session = "fresh"
    reads: Globs | None = None
    writes: Globs | None = None
    connects: Globs | None = None
    executes: Globs | None = None
    volatile: Globs = ()


class ToolNames(Table):
    """deny: globs of tools that are refused and taken out of lists; case does not matter."""

    deny: tuple[Glob, ...] = Field((), max_length=1000)


class Bounds(Table):
    """What a peer may make Holdfast keep in memory, in bytes, and how long it may stay silent, in seconds."""

    head_bytes: int = Field(32 * 1024, ge=1024, le=1 << 20)
    request_bytes: MessageBytes = 16 << 20
    result_bytes: MessageBytes = 64 << 20
    connections: int = Field(4096, ge=1, le=1 << 20)
    head_s: float = Field(30.0, gt=0)
    idle_s: float = Field(3600.0, gt=0)
    connect_s: float = Field(10.0, gt=0)


class Evidence(Table):
    """content: keep what was judged in the evidence log, instead of salted commitments to it."""

    content: bool = False


class Tls(Table):
    """cert, key: PEM files for clients. upstream_ca: PEM file the server's certificate must chain to; without it, the system's."""

    cert: str
    key: str
    upstream_ca: str | None = None


class Bearer(Table):
    """How to verify bearer tokens (JWT, RFC 7519): a PEM public key file, and what the token must say."""

    key_file: str
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA", "PS256"], ...] = ("RS256", "ES256", "EdDSA")
    issuer: str
    audience: str


class PrincipalRules(Table):
    """require = "credential" turns away callers that only an address identifies."""

    require: Literal["any", "credential"] = "any"
    bearer: Bearer | None = None
