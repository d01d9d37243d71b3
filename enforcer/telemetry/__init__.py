"""Evidence as OpenTelemetry logs, by the official SDK, over OTLP/HTTP. The SDK is an optional extra: `pip install holdfast[otel]`.

otlp    entries in, log records out; told how many arrived
"""

from enforcer.telemetry.otlp import ExportFailed, export

__all__ = ["ExportFailed", "export"]
