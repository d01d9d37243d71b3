"""The supervisor's tools as MCP has them, made from the one list that the daemon checks against."""

from __future__ import annotations

import json
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams, TextContent, Tool, ToolAnnotations

from escrow.supervisor import tools
from mcp_server.guard import CALLER
from mcp_server.link import Asker, Caller, Refused

Context = ServerRequestContext[Any, Any]


def caller_of(context: Context) -> Caller:
    """Who asks, as the guard left it. Raises KeyError: the request did not pass it."""
    caller = context.request.scope[CALLER] if context.request is not None else None
    if not isinstance(caller, Caller):
        raise KeyError(CALLER)
    return caller


class Tools:
    def __init__(self, daemon: Asker) -> None:
        self._daemon = daemon
        self._listed = ListToolsResult(tools=[_as_mcp(tool) for tool in tools.TOOLS.values()])

    async def list(self, _context: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
        return self._listed

    async def call(self, context: Context, params: CallToolRequestParams) -> CallToolResult:
        try:
            value = await self._daemon.ask(params.name, params.arguments or {}, caller_of(context))
        except Refused as refused:
            said = {"refused": refused.refusal.code, "why": refused.refusal.text, "retry_after_s": refused.refusal.retry_after_s}
            return CallToolResult(content=[TextContent(type="text", text=json.dumps(said))], is_error=True)
        # The same as text, for clients that read nothing else (MCP "Tools, structured content"); json.dumps escapes all but ASCII.
        return CallToolResult(content=[TextContent(type="text", text=json.dumps(value))], structured_content=value)


def _as_mcp(tool: tools.Tool) -> Tool:
    return Tool(
        name=tool.name,
        title=tool.title,
        description=f"{tool.description} Needs scope `{tool.scope.value}`.",
        input_schema=tool.takes.model_json_schema(),
        output_schema=tool.gives.model_json_schema(mode="serialization"),
        annotations=ToolAnnotations(
            title=tool.title,
            read_only_hint=tool.read_only,
            destructive_hint=tool.destructive,
            idempotent_hint=tool.idempotent,
            open_world_hint=False,
        ),
    )
