"""A held message, as data: what the store keeps, the CLI shows and an approval binds.

Pure. The payload (the bytes themselves) is kept apart (`Payload`), encrypted, so that it can be shredded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from escrow.call import Kind, Transport
from escrow.verdict import Verdict


class State(StrEnum):
    """Where an item stands; `escrow.gate` is the table of moves."""

    HELD = "held"
    APPROVED = "approved"
    """Decided for release (by a person, or by the judges when the client had gone), not yet delivered."""
    DENIED = "denied"
    EXPIRED = "expired"
    """Nobody decided in time, and a client was told so."""
    DELIVERED = "delivered"
    """The client's TCP acknowledged all of it."""
    SHREDDED = "shredded"
    """Payload and key are destroyed."""
    ABANDONED = "abandoned"
    """Nobody waited when its time ran out."""


@dataclass(frozen=True, slots=True)
class Payload:
    """The bytes of a held message.

    raw: the JSON-RPC message exactly as the server sent it.
    headers: response headers that a later answer needs beside it (`mcp-session-id` of an initialize).
    released: what an approval with redactions sends instead of `raw`; None where nothing was redacted.
    sandbox: what the call did in its twin, as JSON (`escrow.sandbox.report`); None where it did not run in one.
    """

    raw: bytes
    headers: tuple[tuple[str, str], ...] = ()
    released: bytes | None = None
    sandbox: str | None = None

    @property
    def outgoing(self) -> bytes:
        return self.raw if self.released is None else self.released


@dataclass(frozen=True, slots=True)
class Item:
    """One message in escrow. Times are Unix seconds; digests are SHA-256 in hex.

    id: `hf-` and ten characters, random.
    call_id: the JSON-RPC id of the request it answers, or of the server's request; None for a notification.
    result_sha256: digest of `Payload.raw`; an approval binds it.
    released_sha256: digest of what a redacting approval released instead; None without one.
    orphaned: an earlier client was told to come back, cancelled, or went away: the same call made again is a retry.
    """

    id: str
    state: State
    kind: Kind
    tool: str
    method: str
    server: str
    principal: str
    session: str | None
    transport: Transport
    call_id: int | str | None
    args_sha256: str
    result_sha256: str
    size_bytes: int
    policy_version: str
    held_at: float
    deadline: float
    verdicts: tuple[Verdict, ...]
    orphaned: bool = False
    decided_by: str | None = None
    decided_at: float | None = None
    reason: str | None = None
    released_sha256: str | None = None
    delivered_at: float | None = None
    holds: Literal["result", "request"] = "result"
    """What is held: what came back, or the call itself, because of its arguments. `result_sha256` is the digest of either."""

    clone: str | None = None
    """Token of the clone of the state from before the call, where the policy keeps one: what `escrow revert` puts back."""
    no_clone: str = ""
    """Why there is none, where the policy keeps them."""
    reverted_by: str | None = None
    reverted_at: float | None = None

    @property
    def identity(self) -> tuple[str, str, str, str, str]:
        """As `Call.identity`."""
        return (self.server, self.principal, self.method, self.tool, self.args_sha256)

    def to_json(self) -> dict[str, Any]:
        """The item as the contract's JSON object."""
        return {
            "id": self.id,
            "state": self.state.value,
            "holds": self.holds,
            "kind": self.kind.value,
            "tool": self.tool,
            "method": self.method,
            "server": self.server,
            "principal": self.principal,
            "session": self.session,
            "transport": self.transport.value,
            "args_sha256": self.args_sha256,
            "result_sha256": self.result_sha256,
            "released_sha256": self.released_sha256,
            "size_bytes": self.size_bytes,
            "policy_version": self.policy_version,
            "held_at": self.held_at,
            "deadline": self.deadline,
            "verdicts": [verdict_json(verdict) for verdict in self.verdicts],
            "decided_by": self.decided_by,
            "decided_at": self.decided_at,
            "reason": self.reason,
            "delivered_at": self.delivered_at,
            "revertible": self.clone is not None and self.reverted_at is None,
            "no_clone": self.no_clone,
            "reverted_by": self.reverted_by,
            "reverted_at": self.reverted_at,
        }


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as the contract's JSON object."""
    return {
        "judge": verdict.judge,
        "finding": verdict.finding.value,
        "score": round(verdict.score, 4),
        "reasons": [
            {
                "rule": reason.rule,
                "text": reason.text,
                "pointer": reason.pointer,
                "span": list(reason.span) if reason.span else None,
                "via": list(reason.via),
            }
            for reason in verdict.reasons
        ],
        "took_ms": round(verdict.took_ms, 3),
    }
