"""The supervising agents' MCP window. Empty until it is built: nothing here is importable yet, and no command offers it."""
