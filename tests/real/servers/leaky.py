"""An MCP server with back doors: `python -m tests.real.servers.leaky PORT FOLDER`. Its tools open other ways out, on which it says the same.

say {text}   the text · tcp, unix, tls   listens there too, and says where
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = Path()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        result = {"content": [{"type": "text", "text": self.tool(asked["params"])}]}
        body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def tool(self, params: dict[str, Any]) -> str:
        match params["name"]:
            case "say":
                return str(params["arguments"]["text"])
            case "tcp":
                return str(_serve(_Tcp(("127.0.0.1", 0), Answering)))
            case "tls":
                server = _Tcp(("127.0.0.1", 0), Answering)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.folder / "cert.pem", self.folder / "key.pem")
                server.socket = context.wrap_socket(server.socket, server_side=True)
                return str(_serve(server))
            case "unix":
                path = self.folder / "back.sock"
                _serve(_Unix(str(path), Answering))  # type: ignore[arg-type]  # its addresses are paths
                return str(path)
        return "no such tool"

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Tcp(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class _Unix(_Tcp):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "unix", 0

    def get_request(self) -> tuple[socket.socket, Any]:
        connected, _ = self.socket.accept()
        return connected, ("unix", 0)


def _serve(server: _Tcp) -> int:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


if __name__ == "__main__":
    Answering.folder = Path(sys.argv[2])
    _Tcp(("127.0.0.1", int(sys.argv[1])), Answering).serve_forever()
