"""A server of one era over stdio: it answers the method that is its first argument, and every other with an error."""

from __future__ import annotations

import json
import sys

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    answer: dict[str, object] = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] in (sys.argv[1], "tools/call"):
        answer["result"] = {"supportedVersions": ["2026-07-28"], "protocolVersion": "2025-11-25", "content": []}
    else:
        answer["error"] = {"code": -32601, "message": "Method not found"}
    print(json.dumps(answer), flush=True)
