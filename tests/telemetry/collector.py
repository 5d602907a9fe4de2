"""An OpenTelemetry collector of the tests: keeps what it is sent over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest


class Collector:
    """What was sent; `refuse` has it answer 403 from then on."""

    def __init__(self) -> None:
        self.received: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.refuse = False
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not collector.refuse:
                    collector.received.append(ExportMetricsServiceRequest.FromString(body))
                    collector.headers.append(dict(self.headers))
                self.send_response(403 if collector.refuse else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/metrics"

    @contextmanager
    def serving(self) -> Iterator[None]:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()

    def metrics(self) -> dict[str, Any]:
        """The last ones, by name."""
        [resource] = self.received[-1].resource_metrics
        [scope] = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}


def attributes(point: Any) -> dict[str, Any]:
    """Of a data point or resource."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in point.attributes}
