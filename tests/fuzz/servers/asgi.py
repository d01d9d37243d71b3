"""`python -m tests.fuzz.servers.asgi PORT FILE httptools|h11`: uvicorn, with either of its parsers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Writer:
    """The application. It answers what it was called, so that its answer fits the request it saw."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        target = scope["raw_path"].decode("latin-1") + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else "")
        seen = {"method": scope["method"], "target": target, "headers": headers, "body": body.decode("latin-1")}
        os.write(self._file, json.dumps(seen).encode() + b"\n")
        try:
            call_id = json.loads(body)["id"]
        except (ValueError, KeyError, TypeError):
            call_id = None
        answer = json.dumps({"jsonrpc": "2.0", "id": call_id, "result": {"content": [{"type": "text", "text": "done"}]}}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": answer})


def main() -> None:
    """Serve until killed."""
    uvicorn.run(Writer(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), http=sys.argv[3], log_level="error", lifespan="off")


if __name__ == "__main__":
    main()
