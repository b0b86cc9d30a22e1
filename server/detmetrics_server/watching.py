"""What the server tells of itself: log lines as JSON, and numbers for Prometheus."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from detmetrics.errors import InputError
from detmetrics.extras import needs

with needs("server"):
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

LOG = logging.getLogger("detmetrics_server")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Give one line of JSON."""
        values: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        values |= getattr(record, "fields", {})
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write log lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    LOG.handlers[:] = [handler]
    LOG.setLevel(level)
    LOG.propagate = False


def log(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: object) -> None:
    """Write one line."""
    LOG.log(level, event, exc_info=error, extra={"fields": fields})


class Numbers:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("detmetrics_calls", "Calls that ended.", ["method", "code"], registry=self.registry)
        self.seconds = Histogram(
            "detmetrics_call_seconds", "Time of a call.", ["method"], buckets=BUCKETS, registry=self.registry
        )
        self.uploaded = Counter("detmetrics_upload_bytes", "Bytes of uploads that came.", registry=self.registry)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a number that is looked up when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def serve(self, address: str) -> Callable[[], None]:
        """Serve the numbers over HTTP; give what ends that."""
        host, _, port = address.rpartition(":")
        try:
            server, thread = start_http_server(int(port), addr=host.strip("[]") or "127.0.0.1", registry=self.registry)
        except OSError as error:
            raise InputError(f"cannot serve metrics on {address}: {error.strerror or error}") from None

        def stop() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        return stop
