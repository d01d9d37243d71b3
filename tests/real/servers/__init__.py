"""The servers the gate is held against: each an ordinary MCP server that knows nothing of Holdfast."""
