"""The daemon's end of the control socket: every command of a person, typed, and who gave it."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import struct
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jsonschema
import referencing
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from enforcer.custody import Custody, StoreFailed, record_json
from escrow import jsonrpc
from escrow.gate import DecisionRefused
from escrow.item import Item, State, verdict_json
from escrow.redact import NothingToRedact, redact
from escrow.verdict import Finding

_MAX_LINE = 1 << 20
_ID = Annotated[str, Field(pattern=r"^hf-[0-9a-f]{10}$")]
_WHY = Annotated[str, Field(min_length=1, max_length=2000)]


class _Ask(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Status(_Ask):
    op: Literal["status"]


class Stop(_Ask):
    op: Literal["stop"]


class ListItems(_Ask):
    op: Literal["escrow.ls"]
    states: tuple[State, ...] = tuple(State)
    limit: int = Field(1000, ge=1, le=100_000)


class Watch(_Ask):
    op: Literal["escrow.watch"]


class Show(_Ask):
    op: Literal["escrow.show"]
    id: _ID


class Approve(_Ask):
    """result_sha256: the bytes the person saw; without it, the held ones."""

    op: Literal["escrow.approve"]
    id: _ID
    why: _WHY
    redact: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    result_sha256: str | None = None


class Deny(_Ask):
    op: Literal["escrow.deny"]
    id: _ID
    why: _WHY


class Replay(_Ask):
    op: Literal["escrow.replay"]
    id: _ID


class Shred(_Ask):
    op: Literal["escrow.shred"]
    id: _ID


class Tools(_Ask):
    op: Literal["tools.ls"]


class Trust(_Ask):
    op: Literal["tools.trust"]


class Verdicts(_Ask):
    op: Literal["verdicts"]
    follow: bool = False


class PolicyShow(_Ask):
    op: Literal["policy.show"]


class SelfTest(_Ask):
    op: Literal["selftest"]
    marked: bool


_ASK: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        Status | Stop | ListItems | Watch | Show | Approve | Deny | Replay | Shred | Tools | Trust | Verdicts | PolicyShow | SelfTest, Field(discriminator="op")
    ]
)


class ControlServer:
    """Serves people. status: the daemon's view of itself. arm: a nonce for the self-test. stop: ends the instance."""

    def __init__(
        self, custody: Custody, status: Callable[[], dict[str, Any]], arm: Callable[[bool], str], stop: Callable[[], None], allowed_uids: frozenset[int]
    ) -> None:
        self._custody, self._status, self._arm, self._stop, self._allowed = custody, status, arm, stop, allowed_uids
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_MAX_LINE)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            uid = peer_uid(writer.get_extra_info("socket"))
            if uid not in self._allowed:
                return
            async with asyncio.timeout(10):
                line = await reader.readuntil(b"\n")
            try:
                ask = _ASK.validate_json(line)
            except ValidationError as error:
                await _say(writer, {"refused": "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())[:2000]})
                return
            if isinstance(ask, Watch) or (isinstance(ask, Verdicts) and ask.follow):
                await self._follow(ask, reader, writer)
                return
            try:
                await _say(writer, {"value": await self._answer(ask, name_of(uid))})
            except KeyError:
                await _say(writer, {"refused": "there is no such item"})
            except (DecisionRefused, NothingToRedact, StoreFailed, _Unfit) as error:
                await _say(writer, {"refused": str(error)})
        except (TimeoutError, ConnectionError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _answer(self, ask: Any, by: str) -> Any:
        custody = self._custody
        match ask:
            case Status():
                return {**self._status(), "items": await custody.counts()}
            case Stop():
                asyncio.get_running_loop().call_later(0.05, self._stop)
                return {"stopping": True}
            case ListItems():
                return [item.to_json() for item in await custody.items(ask.states, ask.limit)]
            case Show():
                payload = await custody.payload(ask.id)
                item = await custody.item(ask.id)
                shown = None if payload is None else payload.raw.decode("utf-8", "replace")
                released = None if payload is None or payload.released is None else payload.released.decode("utf-8", "replace")
                return {**item.to_json(), "payload": shown, "released": released}
            case Approve():
                return (await self._approve(ask, by)).to_json()
            case Deny():
                return (await custody.deny(ask.id, by, ask.why)).to_json()
            case Replay():
                payload = await custody.payload(ask.id)
                item = await custody.item(ask.id)
                if payload is None:
                    raise _Unfit("its payload is shredded: there is nothing to judge")
                verdict = await custody.judge(jsonrpc.read(payload.raw))
                return {"id": ask.id, "policy_version": custody.policy.version, "then": [verdict_json(v) for v in item.verdicts], "now": verdict_json(verdict)}
            case Shred():
                return (await custody.shred(ask.id, by)).to_json()
            case Tools():
                return await custody.tools()
            case Trust():
                return {"trusted": await custody.trust(by)}
            case Verdicts():
                return [json.loads(record_json(record)) for record in custody.recent]
            case PolicyShow():
                return {"version": custody.policy.version, "policy": custody.policy.model_dump(mode="json")}
            case SelfTest():
                return {"nonce": self._arm(ask.marked)}
        raise AssertionError(type(ask))

    async def _approve(self, ask: Approve, by: str) -> Item:
        item = await self._custody.item(ask.id)
        released = None
        if ask.redact is not None:
            payload = await self._custody.payload(ask.id)
            if payload is None:
                raise _Unfit("its payload is shredded")
            released = redact(payload.raw, ask.redact)
            verdict = await self._custody.judge(jsonrpc.read(released))
            if verdict.finding is not Finding.CLEAN:
                raise _Unfit(f"what is left after redaction is judged {verdict.finding.value}: {', '.join(sorted({r.rule for r in verdict.reasons}))}")
            await self._fits(item, released)
        return await self._custody.approve(ask.id, by, ask.why, ask.result_sha256 or item.result_sha256, released)

    async def _fits(self, item: Item, released: bytes) -> None:
        """Redacted structured content must still fit the tool's output schema (MCP "Tools, output schema")."""
        result = jsonrpc.parse(released).get("result")
        content = result.get("structuredContent") if isinstance(result, dict) else None
        for tool in await self._custody.tools():
            definition = json.loads(tool["trusted"] or tool["offered"] or "{}")
            if tool["name"] == item.tool and content is not None and isinstance(schema := definition.get("outputSchema"), dict):
                try:
                    jsonschema.Draft202012Validator(schema, registry=_NO_NETWORK).validate(content)
                except jsonschema.ValidationError as error:
                    raise _Unfit(f"redacted, it does not fit the tool's output schema at /{'/'.join(map(str, error.absolute_path))}") from None
                except Exception as error:
                    raise _Unfit(f"the tool's output schema cannot be used ({type(error).__name__})") from None

    async def _follow(self, ask: Watch | Verdicts, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue = self._custody.follow()
        gone = asyncio.ensure_future(reader.read(1))
        try:
            while not gone.done():
                getting = asyncio.ensure_future(queue.get())
                await asyncio.wait({getting, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    return
                record = getting.result()
                if isinstance(ask, Verdicts):
                    await _say(writer, {"value": json.loads(record_json(record))})
                elif record.get("item"):
                    await _say(writer, {"value": (await self._custody.item(record["item"])).to_json()})
        finally:
            self._custody.unfollow(queue)
            gone.cancel()


class _Unfit(Exception):
    """A person's command cannot be carried out; the text says why."""


def _no_network(uri: str) -> Any:
    raise KeyError(uri)


_NO_NETWORK: referencing.Registry[Any] = referencing.Registry(retrieve=_no_network)  # type: ignore[call-arg]


async def _say(writer: asyncio.StreamWriter, value: dict[str, Any]) -> None:
    writer.write(json.dumps(value).encode() + b"\n")
    await writer.drain()


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
