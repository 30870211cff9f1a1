"""What spans of requests tell, and where they are sent; FastAPI makes them by its own hook.

app.add_middleware(Untold)
"""

import importlib
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace

from trimodal.errors import ConfigError

DEFAULTS = {
    "OTEL_SERVICE_NAME": "trimodal",
    # seconds of an attempt to send; three are made when the server stops, if the collector is away
    "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
}
"""Other than OpenTelemetry's; the environment goes before them."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Untold:
    """An ASGI layer that takes out of a request's span what the client wrote into its target.

    FastAPI tells the path and the query as they are. A path may hold the name of a model, of an
    index or of an item, and a query, which nothing here reads, whatever a client puts there.
    """

    def __init__(self, app: App) -> None:
        """Stand before an app."""
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI protocol."""
        if scope["type"] == "http":
            span = trace.get_current_span()
            span.set_attribute("url.path", scope["visit"].route)
            if scope.get("query_string"):
                span.set_attribute("url.query", "")
        await self.app(scope, receive, send)


def send_to(address: str) -> None:
    """Have FastAPI send spans and durations to a collector, from the next start of an app.

    Args:
        address: of the collector, such as http://127.0.0.1:4318; `/v1/traces` and `/v1/metrics`
            are put behind it.

    Raises:
        ConfigError: it is no such address, or a library is missing.
    """
    try:
        parts = urlsplit(address)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"--telemetry {address}: must be like http://127.0.0.1:4318")
    try:
        importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        raise ConfigError(
            f"--telemetry needs {error.name}: pip install 'trimodal[otel]'"
        ) from error
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = address
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
