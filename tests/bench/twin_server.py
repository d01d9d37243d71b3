"""A Python MCP server with a fast and a slow tool, over stdio or, with a port, over HTTP: the real one of the sandbox's bench, and its twin."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import uvicorn
from mcp.server import MCPServer

FAST_S, SLOW_S = 0.002, 0.3
server = MCPServer("bench")


@server.tool()
def fast(n: int) -> str:
    """Read one of the state's files."""
    time.sleep(FAST_S)
    return Path(sys.argv[1], f"{n % 100}.txt").read_text()


@server.tool()
def slow(n: int) -> str:
    """The same, slowly."""
    time.sleep(SLOW_S)
    return Path(sys.argv[1], f"{n % 100}.txt").read_text()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        uvicorn.run(server.streamable_http_app(json_response=True, stateless_http=True), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
    else:
        server.run("stdio")
