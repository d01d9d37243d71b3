"""A real Python MCP server as a program: `python -m tests.real.servers.program --port P --state DIR --serve http|sse …`."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from tests.real.servers import conformance, tools
from tests.real.servers.events import MemoryEvents
from tests.real.servers.sdk import MODERN
from tests.real.servers.state import State

RETRY_MS = 100
"""How long a client waits before it resumes a stream (SEP-1699), in milliseconds."""


def application(state: State, serve: str, *, json_response: bool, stateless: bool) -> Starlette:
    """The server as an ASGI application; `serve` is "http" (Streamable HTTP) or "sse" (the 2024-11-05 pair)."""
    if MODERN:
        server = tools.PoisonedServer("holdfast-tests")
    else:  # 1.x takes the transport's settings here
        options = {"json_response": json_response, "stateless_http": stateless, "event_store": MemoryEvents(), "retry_interval": RETRY_MS}
        server = tools.PoisonedServer("holdfast-tests", **options)  # type: ignore[arg-type,unused-ignore]
    server.state = state
    tools.register(server)
    conformance.register(server)
    if serve == "sse":
        return server.sse_app()
    if not MODERN:
        return server.streamable_http_app()
    return server.streamable_http_app(json_response=json_response, stateless_http=stateless, event_store=MemoryEvents(), retry_interval=RETRY_MS)


def main() -> None:
    """Serve until killed."""
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--state", type=Path, required=True)
    options.add_argument("--serve", choices=("http", "sse"), default="http")
    options.add_argument("--json", action="store_true")
    options.add_argument("--stateless", action="store_true")
    chosen = options.parse_args()
    app = application(State(chosen.state), chosen.serve, json_response=chosen.json, stateless=chosen.stateless)
    uvicorn.run(app, host=chosen.host, port=chosen.port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
