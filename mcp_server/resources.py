"""Recent verdicts and held items as resources. Reading one asks the daemon what the tool of the same kind would."""

from __future__ import annotations

import json
import re
from typing import Any

from mcp import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from mcp_server.link import Asker, Caller, Refused
from mcp_server.tools import Context, caller_of

PAGE = 50
_JSON = "application/json"
_RECENT, _HELD = "holdfast://verdicts/recent", "holdfast://escrow/held"
_FIXED = (
    Resource(uri=_RECENT, name="recent verdicts", description="The newest decisions, with the judges' reasons", mime_type=_JSON),
    Resource(uri=_HELD, name="held items", description="What waits for a decision, without payloads", mime_type=_JSON),
)
_TEMPLATES = (
    ResourceTemplate(uri_template="holdfast://verdict/{id}", name="verdict", description="One decision, by its id", mime_type=_JSON),
    ResourceTemplate(uri_template="holdfast://escrow/{id}", name="held item", description="One item, without its payload", mime_type=_JSON),
)
_ONE = re.compile(r"holdfast://(verdict|escrow)/([A-Za-z0-9._-]{1,64})")


class Resources:
    def __init__(self, daemon: Asker) -> None:
        self._daemon = daemon

    async def list(self, context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        cursor = params.cursor if params is not None else None
        query = {"limit": PAGE} if cursor is None else {"limit": PAGE, "cursor": cursor}
        page = await self._ask("get_verdicts", query, caller_of(context))
        # Named by their ids alone: a record's words may be a stranger's.
        verdicts = [Resource(uri=f"holdfast://verdict/{record['id']}", name=f"verdict {record['id']}", mime_type=_JSON) for record in page["verdicts"]]
        return ListResourcesResult(resources=[*(_FIXED if cursor is None else ()), *verdicts], next_cursor=page["next_cursor"])

    async def templates(self, _context: Context, _params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=list(_TEMPLATES))

    async def read(self, context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        uri, caller = str(params.uri), caller_of(context)
        one = _ONE.fullmatch(uri)
        if uri == _RECENT:
            value = await self._ask("get_verdicts", {"limit": PAGE}, caller)
        elif uri == _HELD:
            value = await self._ask("list_escrow", {"limit": PAGE}, caller)
        elif one is not None and one[1] == "verdict":
            value = await self._ask("get_verdict", {"id": one[2]}, caller)
        elif one is not None:
            value = await self._ask("get_escrow", {"id": one[2], "payload": False}, caller)
        else:
            raise MCPError(INVALID_PARAMS, "there is no such resource")
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=_JSON, text=json.dumps(value))])

    async def _ask(self, tool: str, arguments: dict[str, Any], caller: Caller) -> dict[str, Any]:
        try:
            return await self._daemon.ask(tool, arguments, caller)
        except Refused as refused:
            ours = refused.refusal.code == "failed"
            raise MCPError(INTERNAL_ERROR if ours else INVALID_PARAMS, refused.refusal.text) from None
