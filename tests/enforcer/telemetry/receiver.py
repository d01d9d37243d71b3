"""A real OTLP/HTTP receiver on loopback: reads what comes with OpenTelemetry's own protocol messages."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse


class Receiver:
    """Use as a context. batches: the log records of each request. refuse_after: further requests are answered with 400."""

    def __init__(self, refuse_after: int = 1 << 30) -> None:
        self.batches: list[list[Any]] = []
        self.paths: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                refused = len(receiver.batches) >= refuse_after
                if not refused:
                    request = ExportLogsServiceRequest.FromString(body)
                    receiver.batches.append([record for r in request.resource_logs for s in r.scope_logs for record in s.log_records])
                    receiver.paths.add(self.path)
                answer = ExportLogsServiceResponse().SerializeToString()
                self.send_response(400 if refused else 200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/logs"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def records(self) -> list[Any]:
        return [record for batch in self.batches for record in batch]
