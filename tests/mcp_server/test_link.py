"""The window's end of its socket: answers find their questions, and a daemon that is gone or talks nonsense is no daemon."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mcp_server.link import Caller, Link, Refused

pytestmark = pytest.mark.anyio
ME = Caller("t", ("127.0.0.1", 1), ("127.0.0.1", 2))


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, asyncio.StreamReader, asyncio.StreamWriter]]:
    ours, theirs = socket.socketpair()
    link = Link(theirs)
    await link.open()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    async with asyncio.timeout(10):
        yield link, reader, writer
    writer.close()
    link.close()


async def test_answers_in_any_order_find_their_questions() -> None:
    async with linked() as (link, reader, writer):
        asking = [asyncio.ensure_future(link.ask("get_status", {"n": number}, ME)) for number in range(20)]
        questions = [json.loads(await reader.readline()) for _ in asking]
        for question in reversed(questions):
            writer.write(json.dumps({"id": question["id"], "value": {"n": question["arguments"]["n"]}}).encode() + b"\n")
        assert [(await each)["n"] for each in asking] == list(range(20))
        assert questions[0]["token"] == "t" and questions[0]["peer"] == ["127.0.0.1", 1]


async def test_a_refusal_is_raised_with_its_code() -> None:
    async with linked() as (link, reader, writer):
        asking = asyncio.ensure_future(link.ask("lock", {}, ME))
        number = json.loads(await reader.readline())["id"]
        writer.write(json.dumps({"id": number, "refusal": {"code": "scope", "text": "no"}}).encode() + b"\n")
        with pytest.raises(Refused, match="no") as refused:
            await asking
        assert refused.value.refusal.code == "scope"


@pytest.mark.parametrize("said", [b"", b"nonsense\n", b'{"id":"x"}\n', b"x" * (6 << 20)])
async def test_a_daemon_that_is_gone_or_talks_nonsense_fails_every_question(said: bytes) -> None:
    async with linked() as (link, reader, writer):
        asking = asyncio.ensure_future(link.ask("get_status", {}, ME))
        await reader.readline()
        writer.write(said)
        if not said:
            writer.close()
        with pytest.raises(Refused, match="does not answer"):
            await asking
        assert link.ended.is_set()
        with pytest.raises(Refused, match="does not answer"):
            await link.ask("get_status", {}, ME)


def nested(depth: int) -> dict[str, object]:
    whole: dict[str, object] = {}
    for _ in range(depth):
        whole = {"x": whole}
    return whole


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("x" * 65, {}), ("lock", {"why": "\ud800"}), ("\udfff", {}), ("lock", {"why": "x" * (300 * 1024)}), ("lock", nested(5000)), ("lock", {"n": float("nan")})],
)
async def test_what_cannot_be_put_to_the_daemon_is_refused_and_the_next_is_not(tool: str, arguments: dict[str, object]) -> None:
    async with linked() as (link, reader, writer):
        try:
            async with asyncio.timeout(0.2):
                await link.ask(tool, arguments, ME)
        except Refused as refused:
            assert refused.refusal.code == "unfit"
        except TimeoutError:  # it could be put: then it is a line that can be read
            json.loads(await reader.readline())
        asking = asyncio.ensure_future(link.ask("get_status", {}, ME))
        question = json.loads(await reader.readline())
        assert question["tool"] == "get_status"
        writer.write(json.dumps({"id": question["id"], "value": {}}).encode() + b"\n")
        assert await asking == {}
