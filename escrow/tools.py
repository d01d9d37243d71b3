"""Tool definitions: what was trusted, and the judge of lists that changed since.

Pure. A definition is trusted on first use; after the first whole listing, another definition of a tool, or another tool, is a change.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from escrow.verdict import Finding, Reason, Verdict


def definitions(result: Any) -> list[tuple[str, str, str]]:
    """The tools of a tools/list result as (name, SHA-256 of the definition, definition as sorted JSON)."""
    tools = result.get("tools") if isinstance(result, dict) else None
    found = []
    for tool in tools if isinstance(tools, list) else ():
        name = tool.get("name") if isinstance(tool, dict) else None
        text = json.dumps(tool, sort_keys=True)
        found.append((name[:512] if isinstance(name, str) else "", hashlib.sha256(text.encode()).hexdigest(), text))
    return found


def judge_tools(result: Any, trusted: frozenset[tuple[str, str]], complete: bool) -> Verdict:
    """CLEAN where every definition is trusted, or not known yet; else UNSURE with a reason for each tool.

    Until the first listing is whole, tools may be new, but none that is trusted may change: a server need never finish it.
    """
    names = {name for name, _ in trusted}
    reasons = tuple(
        Reason(
            "tools.changed" if name in names else "tools.new",
            "This tool's definition changed since it was trusted." if name in names else "This tool was not there when the list was trusted.",
            f"/result/tools/{index}",
        )
        for index, (name, digest, _) in enumerate(definitions(result))
        if (name, digest) not in trusted and (complete or name in names)
    )
    return Verdict("tools", Finding.UNSURE if reasons else Finding.CLEAN, 0.5 if reasons else 0.0, reasons[:64])
