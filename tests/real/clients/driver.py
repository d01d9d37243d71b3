"""A Python MCP client as a program, for both SDKs: the first line of stdin says where to connect, each next line is a step.

First line: {"url", "transport": "http"|"sse", "mode": "auto"|"legacy", "headers": {…}}. Answered by the handshake's outcome.
Steps: {"do": "list_tools"|"list_resources"|"list_prompts"|"ping"}, {"do": "call", "name", "arguments", "timeout_s"?, "cancel_after_s"?},
{"do": "read", "uri"}, {"do": "prompt", "name", "arguments"}, {"do": "parallel", "steps": […]}. Each is answered by one line:
{"ok": true, "value", "took_ms", "events"} or {"ok": false, "error": {"kind", "code", "message", "data"}, "took_ms", "events"}.
`events` are what the server sent meanwhile: progress, logs, questions. End of input closes the session.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.types import CreateMessageResult, ElicitResult

from tests.real.servers.sdk import MODERN

events: list[dict[str, Any]] = []


async def _elicited(context: Any, params: Any) -> ElicitResult:
    events.append({"elicitation": params.message})
    return ElicitResult(action="accept", content={"text": "blue", "response": "blue"})


async def _sampled(context: Any, params: Any) -> CreateMessageResult:
    events.append({"sampling": True})
    answer = {"role": "assistant", "model": "test", "content": {"type": "text", "text": "a sample"}}
    return CreateMessageResult.model_validate(answer)


async def _logged(params: Any) -> None:
    events.append({"log": params.data})


async def _progressed(progress: float, total: float | None, message: str | None) -> None:
    events.append({"progress": progress, "message": message})


_callbacks: dict[str, Any] = {"elicitation_callback": _elicited, "sampling_callback": _sampled, "logging_callback": _logged}


@asynccontextmanager
async def _connect(where: dict[str, Any]) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    headers = where.get("headers", {})
    async with AsyncExitStack() as stack:
        if where["transport"] == "sse":
            transport: Any = sse_client(where["url"], headers=headers)
        elif MODERN:
            import httpx2
            from mcp.client.streamable_http import streamable_http_client

            http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30, read=300)))
            transport = streamable_http_client(where["url"], http_client=http)
        else:
            from mcp.client.streamable_http import streamablehttp_client  # type: ignore[attr-defined,unused-ignore]

            transport = streamablehttp_client(where["url"], headers=headers)
        if MODERN:
            from mcp import Client

            client = await stack.enter_async_context(Client(transport, mode=where.get("mode", "auto"), cache=None, **_callbacks))
            yield client, {"protocol": client.protocol_version, "instructions": client.instructions}
        else:
            read, write, *_ = await stack.enter_async_context(transport)
            session = await stack.enter_async_context(ClientSession(read, write, **_callbacks))
            opened = await session.initialize()
            yield session, {"protocol": getattr(opened, "protocolVersion", ""), "instructions": opened.instructions}


async def _do(client: Any, step: dict[str, Any]) -> Any:
    match step["do"]:
        case "list_tools" | "list_resources" | "list_prompts" as what:
            return await getattr(client, what)()
        case "ping":
            return await client.send_ping()
        case "read":
            return await client.read_resource(step["uri"])
        case "prompt":
            return await client.get_prompt(step["name"], step["arguments"])
        case "call":
            return await client.call_tool(step["name"], step["arguments"], progress_callback=_progressed)
    raise ValueError(step["do"])


def _failure(error: BaseException) -> dict[str, Any]:
    if isinstance(error, TimeoutError):
        return {"kind": "timeout", "message": str(error)}
    details = getattr(error, "error", None)
    if details is not None and hasattr(details, "code"):
        return {"kind": "rpc", "code": details.code, "message": details.message, "data": details.data}
    return {"kind": type(error).__name__, "message": str(error)}


async def _answer(client: Any, step: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    outcome: dict[str, Any]
    if step["do"] == "parallel":
        answers: list[Any] = [None] * len(step["steps"])

        async def one(number: int, inner: dict[str, Any]) -> None:
            answers[number] = await _answer(client, inner)

        async with anyio.create_task_group() as group:
            for number, inner in enumerate(step["steps"]):
                group.start_soon(one, number, inner)
        outcome = {"ok": True, "value": answers}
    else:
        try:
            with anyio.fail_after(step.get("cancel_after_s") or step.get("timeout_s") or 120):
                value = await _do(client, step)
            outcome = {"ok": True, "value": value.model_dump(mode="json", by_alias=True, exclude_none=True)}
        except Exception as error:  # the test reads what a client's program would have caught
            outcome = {"ok": False, "error": _failure(error)}
    sent, events[:] = list(events), []
    return {**outcome, "took_ms": (time.monotonic() - began) * 1000, "events": sent}


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


async def main() -> None:
    """Connect, then take steps until stdin ends."""
    where = json.loads(sys.stdin.readline())
    try:
        async with _connect(where) as (client, opened):
            _say({"ok": True, "value": opened})
            while line := await anyio.to_thread.run_sync(sys.stdin.readline):
                _say(await _answer(client, json.loads(line)))
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        _say({"ok": False, "error": _failure(error)})
    except Exception as error:
        _say({"ok": False, "error": _failure(error)})


if __name__ == "__main__":
    anyio.run(main)
