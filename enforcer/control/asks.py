"""Everything a person can ask over the control socket: a closed list, each with every field it may have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from escrow.canary import NAME_PATTERN
from escrow.item import State
from escrow.supervisor.scopes import Scope

Id = Annotated[str, Field(pattern=r"^hf-[0-9a-f]{10}$")]
ProposalId = Annotated[str, Field(pattern=r"^pp-[0-9a-f]{10}$")]
Why = Annotated[str, Field(min_length=1, max_length=2000)]
TokenName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
PrincipalText = Annotated[str, Field(pattern=r"^(sub|auth|local|address):[!-~]{1,120}$")]


class Ask(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Status(Ask):
    op: Literal["status"]


class Stop(Ask):
    op: Literal["stop"]


class ListItems(Ask):
    op: Literal["escrow.ls"]
    states: tuple[State, ...] = tuple(State)
    limit: int = Field(1000, ge=1, le=100_000)


class Watch(Ask):
    op: Literal["escrow.watch"]


class Show(Ask):
    op: Literal["escrow.show"]
    id: Id


class Approve(Ask):
    """result_sha256: the bytes the person saw; without it, the held ones."""

    op: Literal["escrow.approve"]
    id: Id
    why: Why
    redact: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    result_sha256: str | None = None


class Deny(Ask):
    op: Literal["escrow.deny"]
    id: Id
    why: Why


class Replay(Ask):
    op: Literal["escrow.replay"]
    id: Id


class Revert(Ask):
    """do: put the state back; without, only say what that would change."""

    op: Literal["escrow.revert"]
    id: Id
    why: Why
    do: bool = False


class Shred(Ask):
    op: Literal["escrow.shred"]
    id: Id


class Tools(Ask):
    op: Literal["tools.ls"]


class Trust(Ask):
    op: Literal["tools.trust"]


class Verdicts(Ask):
    op: Literal["verdicts"]
    follow: bool = False


class PolicyShow(Ask):
    """origin: also where each value comes from."""

    op: Literal["policy.show"]
    origin: bool = False


class PolicySet(Ask):
    """text: a whole policy document. against: the version that the person saw; another one running by now is not replaced."""

    op: Literal["policy.set"]
    text: Annotated[str, Field(max_length=256 * 1024)]
    why: Annotated[str, Field(max_length=2000)] = ""
    against: str | None = None


class PolicyProposals(Ask):
    op: Literal["policy.proposals"]


class PolicyAccept(Ask):
    """against: as in PolicySet."""

    op: Literal["policy.accept"]
    id: ProposalId
    why: Why
    against: str | None = None


class PolicyReject(Ask):
    op: Literal["policy.reject"]
    id: ProposalId
    why: Why


class SelfTest(Ask):
    op: Literal["selftest"]
    marked: bool


class TokenNew(Ask):
    """expires_s: from now. acts_as: principals whose items it may neither decide nor read the payload of.

    may_apply: what it proposes becomes the policy at once, without a person.
    """

    op: Literal["token.new"]
    name: TokenName
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    acts_as: Annotated[tuple[PrincipalText, ...], Field(max_length=16)] = ()
    expires_s: float = Field(30 * 86400, gt=0, le=3650 * 86400)
    may_apply: bool = False


class TokenList(Ask):
    op: Literal["token.ls"]


class TokenRevoke(Ask):
    op: Literal["token.revoke"]
    name: TokenName


class CanaryAdd(Ask):
    """The token itself stays with whoever made it: the daemon is told its digest."""

    op: Literal["canary.add"]
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CanaryList(Ask):
    op: Literal["canary.ls"]


class CanaryRemove(Ask):
    op: Literal["canary.rm"]
    name: Annotated[str, Field(pattern=NAME_PATTERN)]


class Lock(Ask):
    op: Literal["lock"]
    why: Annotated[str, Field(max_length=2000)] = ""


class Unlock(Ask):
    op: Literal["unlock"]
    why: Why


ANY: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        Status | Stop | ListItems | Watch | Show | Approve | Deny | Replay | Revert | Shred | Tools | Trust | Verdicts | PolicyShow | SelfTest
        | PolicySet | PolicyProposals | PolicyAccept | PolicyReject | TokenNew | TokenList | TokenRevoke | Lock | Unlock
        | CanaryAdd | CanaryList | CanaryRemove,
        Field(discriminator="op"),
    ]
)  # fmt: skip
