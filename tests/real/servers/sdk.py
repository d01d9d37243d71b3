"""Which Python SDK runs this server: mcp 2.x in the project's own venv, mcp 1.x in a venv of its own.

The same tools are registered with both, so a test can be asked of either. Type checkers see 2.x only.
"""

# ruff: noqa: I001
from __future__ import annotations

from importlib.metadata import version

MODERN = not version("mcp").startswith("1.")
"""Whether this SDK speaks 2026-07-28 beside the session era."""

if MODERN:
    from mcp.server.mcpserver import Context
    from mcp.server import MCPServer as Server
else:
    from mcp.server.fastmcp import Context  # type: ignore[import-not-found,attr-defined,no-redef,unused-ignore]
    from mcp.server.fastmcp import FastMCP as Server  # type: ignore[import-not-found,attr-defined,no-redef,unused-ignore]

__all__ = ["MODERN", "Context", "Server"]
