"""What each command of a person does, and who that person is."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import jsonschema
import referencing

from enforcer.control import asks, canaries, policy
from enforcer.control.canaries import Canaries, CanariesFailed
from enforcer.control.tokens import Token, Tokens
from enforcer.custody import Custody, record_json
from enforcer.policies import Policies, PolicyRefused
from escrow import jsonrpc
from escrow.item import Item, verdict_json
from escrow.policy import PolicyError
from escrow.redact import redact
from escrow.verdict import Finding


class Unfit(Exception):
    """A command cannot be carried out; the text says why."""


class Shower(Protocol):
    """Who tells what twins there are."""

    async def show(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class People:
    """status: the daemon's view of itself. arm: a nonce for the self-test. stop: ends the instance. twins: None where the policy names none."""

    custody: Custody
    tokens: Tokens
    status: Callable[[], dict[str, Any]]
    arm: Callable[[bool], str]
    stop: Callable[[], None]
    policies: Policies | None = None
    canaries: Canaries | None = None
    twins: Shower | None = None

    async def answer(self, ask: Any, by: str) -> Any:
        """Raises KeyError (no such thing), DecisionRefused, NothingToRedact, StoreFailed, TokensFailed, Unfit."""
        custody = self.custody
        match ask:
            case asks.Status():
                return {**self.status(), "items": await custody.counts(), "sandbox": None if self.twins is None else await self.twins.show()}
            case asks.Stop():
                asyncio.get_running_loop().call_later(0.05, self.stop)
                return {"stopping": True}
            case asks.ListItems():
                return [item.to_json() for item in await custody.items(ask.states, ask.limit)]
            case asks.Show():
                payload = await custody.payload(ask.id)
                item = await custody.item(ask.id)
                shown = None if payload is None else payload.raw.decode("utf-8", "replace")
                released = None if payload is None or payload.released is None else payload.released.decode("utf-8", "replace")
                ran = None if payload is None or payload.sandbox is None else json.loads(payload.sandbox)
                return {**item.to_json(), "payload": shown, "released": released, "sandbox": ran}
            case asks.Approve():
                return (await self._approve(ask, by)).to_json()
            case asks.Deny():
                return (await custody.deny(ask.id, by, ask.why)).to_json()
            case asks.Replay():
                return await self._replay(ask)
            case asks.Revert():
                found = await custody.revert(ask.id, by, ask.why, ask.do)
                changes = [{"path": each.path, "change": each.change.value, "mode": each.mode} for each in found.changes]
                return {"id": ask.id, "done": found.done, "changes": changes, "more": found.more}
            case asks.Shred():
                return (await custody.shred(ask.id, by)).to_json()
            case asks.Tools():
                return await custody.tools()
            case asks.Trust():
                return {"trusted": await custody.trust(by)}
            case asks.Verdicts():
                return [json.loads(record_json(record)) for record in custody.recent]
            case asks.PolicyShow() | asks.PolicySet() | asks.PolicyProposals() | asks.PolicyAccept() | asks.PolicyReject():
                if self.policies is None:
                    raise Unfit("this instance's policy is not to be changed or shown")
                try:
                    return policy.answer(self.policies, ask, by, time.time())
                except (PolicyError, PolicyRefused) as error:
                    raise Unfit(str(error)) from None
            case asks.SelfTest():
                return {"nonce": self.arm(ask.marked)}
            case asks.Lock():
                return {"locked": asdict(await custody.lock(by, ask.why))}
            case asks.Unlock():
                if custody.locked is None:
                    raise Unfit("it is not locked")
                await custody.unlock(by, ask.why)
                return {"locked": None}
            case asks.TokenNew():
                return await self._new_token(ask, by)
            case asks.TokenList():
                return [token.to_json(time.time()) for token in self.tokens.all()]
            case asks.TokenRevoke():
                return await self._revoke_token(ask.name, by)
            case asks.CanaryAdd() | asks.CanaryList() | asks.CanaryRemove():
                if self.canaries is None:
                    raise Unfit("this instance watches no canaries")
                try:
                    if not isinstance(ask, asks.CanaryList):  # recorded before it takes effect
                        await custody.canary_changed("made" if isinstance(ask, asks.CanaryAdd) else "removed", ask.name, by)
                    return canaries.answer(self.canaries, ask, time.time())
                except CanariesFailed as error:
                    raise Unfit(str(error)) from None
        raise AssertionError(type(ask))

    async def _new_token(self, ask: asks.TokenNew, by: str) -> dict[str, Any]:
        now = time.time()
        token, secret = self.tokens.draft(ask.name, ask.scopes, ask.acts_as, by, now, now + ask.expires_s, ask.may_apply)
        await self._note_token("made", token, by)
        self.tokens.keep(token)
        return {**token.to_json(now), "token": secret}

    async def _revoke_token(self, name: str, by: str) -> dict[str, Any]:
        token = self.tokens.named(name)
        self.tokens.revoke(token)  # first: it is better revoked than recorded
        await self._note_token("revoked", token, by)
        return token.to_json(time.time())

    async def _note_token(self, change: Literal["made", "revoked"], token: Token, by: str) -> None:
        acts_as = " ".join(token.acts_as) or None
        await self.custody.token_changed(change, token.name, " ".join(sorted(token.scopes)), by, acts_as)

    async def _replay(self, ask: asks.Replay) -> dict[str, Any]:
        payload = await self.custody.payload(ask.id)
        item = await self.custody.item(ask.id)
        if payload is None:
            raise Unfit("its payload is shredded: there is nothing to judge")
        verdict = await self.custody.judge(jsonrpc.read(payload.raw))
        return {"id": ask.id, "policy_version": self.custody.policy.version, "then": [verdict_json(v) for v in item.verdicts], "now": verdict_json(verdict)}

    async def _approve(self, ask: asks.Approve, by: str) -> Item:
        item = await self.custody.item(ask.id)
        released = None
        if ask.redact is not None:
            payload = await self.custody.payload(ask.id)
            if payload is None:
                raise Unfit("its payload is shredded")
            released = redact(payload.raw, ask.redact)
            verdict = await self.custody.judge(jsonrpc.read(released))
            if verdict.finding is not Finding.CLEAN:
                raise Unfit(f"what is left after redaction is judged {verdict.finding.value}: {', '.join(sorted({r.rule for r in verdict.reasons}))}")
            await self._fits(item, released)
        return await self.custody.approve(ask.id, by, ask.why, ask.result_sha256 or item.result_sha256, released)

    async def _fits(self, item: Item, released: bytes) -> None:
        """Redacted structured content must still fit the tool's output schema (MCP "Tools, output schema")."""
        result = jsonrpc.parse(released).get("result")
        content = result.get("structuredContent") if isinstance(result, dict) else None
        for tool in await self.custody.tools():
            definition = json.loads(tool["trusted"] or tool["offered"] or "{}")
            if tool["name"] == item.tool and content is not None and isinstance(schema := definition.get("outputSchema"), dict):
                try:
                    jsonschema.Draft202012Validator(schema, registry=_NO_NETWORK).validate(content)
                except jsonschema.ValidationError as error:
                    raise Unfit(f"redacted, it does not fit the tool's output schema at /{'/'.join(map(str, error.absolute_path))}") from None
                except Exception as error:
                    raise Unfit(f"the tool's output schema cannot be used ({type(error).__name__})") from None


def _no_network(uri: str) -> Any:
    raise KeyError(uri)


_NO_NETWORK: referencing.Registry[Any] = referencing.Registry(retrieve=_no_network)  # type: ignore[call-arg]


def peer_uid(sock: Any) -> int:
    """The uid at the other end, as the kernel says it."""
    if hasattr(socket, "SO_PEERCRED"):
        return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])
    return os.getuid()  # macOS: the socket's 0600 in a 0700 folder is the check


def name_of(uid: int) -> str:
    """A person's name for records: `alice (uid 1000)`."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
