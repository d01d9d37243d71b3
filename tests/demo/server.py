"""An MCP server that reads documents: `python -m tests.demo.server PORT`. Plain SDK code; nothing in it knows of Holdfast."""

from __future__ import annotations

import sys

from mcp.server import MCPServer

from tests.demo.documents import DOCUMENTS

server = MCPServer("documents")


@server.tool()
def read_document(name: str) -> str:
    """Read one of the company's documents by its name."""
    return DOCUMENTS[name]


if __name__ == "__main__":
    server.run("streamable-http", port=int(sys.argv[1]))
