import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trimodal.errors import ConfigError
from trimodal.models import TrimodalModel
from trimodal_serving.access import Access
from trimodal_serving.engine import Engine
from trimodal_serving.keys import SCOPES, KeyFile
from trimodal_serving.spans import send_to

WORD = "marzipan"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
"""Stands wherever a client can put something."""


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def secret(file: KeyFile) -> str:
    return file.add(tenant=f"t-{WORD}", scopes=SCOPES)[1]


@pytest.fixture
def client(
    exporter: InMemorySpanExporter,
    serve: Callable[..., Any],
    model: TrimodalModel,
    file: KeyFile,
    secret: str,
    tmp_path: Path,
) -> Iterator[httpx.Client]:
    engine = Engine(lambda: model)
    with serve(engine, access=Access(file), indexes=tmp_path / "indexes") as server:
        server.wait_until_ready(secret)
        exporter.clear()
        headers = {"authorization": f"Bearer {secret}", "x-request-id": WORD}
        with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
            yield client


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_request_has_a_span_with_its_route_and_its_status(
    exporter: InMemorySpanExporter, client: httpx.Client
) -> None:
    body = {"model": "tiny", "input": "red"}
    assert client.post("/v1/embeddings", json=body).status_code == 200
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    wrong = client.post("/v1/embeddings", json={"input": "red", "x": 1}, headers=headers)
    assert wrong.status_code == 400
    good, bad = exporter.get_finished_spans()
    assert good.name == bad.name == "POST /v1/embeddings"
    assert good.kind == trace.SpanKind.SERVER
    assert told(good)["http.request.method"] == "POST"
    assert told(good)["http.route"] == told(good)["url.path"] == "/v1/embeddings"
    assert told(good)["http.response.status_code"] == 200
    assert told(bad)["http.response.status_code"] == 400
    assert bad.context is not None
    assert f"{bad.context.trace_id:032x}" == TRACE


def test_what_is_refused_at_the_door_has_none(
    exporter: InMemorySpanExporter, client: httpx.Client
) -> None:
    answer = client.get("/readyz", headers={"authorization": f"Bearer {WORD}"})
    assert answer.status_code == 401
    assert not exporter.get_finished_spans()


def test_a_span_holds_nothing_that_was_sent(
    exporter: InMemorySpanExporter, client: httpx.Client, secret: str
) -> None:
    index = {"name": WORD, "fields": {WORD: "string"}}
    item = {"id": WORD, "input": WORD, "metadata": {WORD: WORD}, "payload": WORD}
    chat = {"model": "tiny", "messages": [{"role": "user", "content": WORD}], "max_tokens": 2}
    named = f"/v1/indexes/{WORD}"
    traced = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tracestate": f"vendor={WORD}"}
    answers = [
        client.post("/v1/embeddings", json={"model": "tiny", "input": WORD}, headers=traced),
        client.post("/v1/chat/completions", json=chat),
        client.post("/v1/chat/completions", json={**chat, "stream": True}),
        client.post("/v1/indexes", json=index),
        client.post(f"{named}/items", json={"model": "tiny", "items": [item]}),
        client.get(f"{named}/items/{WORD}"),
        client.post(f"/v1/embeddings?{WORD}={secret}", json={"model": WORD, "input": WORD}),
        client.get(f"/v1/models/{WORD}"),
        client.get(f"/{secret}/{WORD}", params={"api_key": secret}),
    ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 200, 200, 201, 200, 200, 404, 404, 404]
    spans = exporter.get_finished_spans()
    assert [told(span)["http.response.status_code"] for span in spans] == statuses
    everything = "".join(span.to_json() for span in spans)
    assert WORD not in everything
    assert secret not in everything
    assert "POST /v1/indexes/{name}/items" in everything


@pytest.mark.parametrize("address", ["127.0.0.1:4318", "ftp://a.org", "http://", "http://a:b"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=f"--telemetry {address}: must be like http://"):
        send_to(address)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"pip install 'trimodal\[otel\]'"):
        send_to("http://127.0.0.1:4318")


class Collector(HTTPServer):
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Kept)
        self.bodies: list[tuple[str, bytes]] = []


class Kept(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Collector)
        self.server.bodies.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join(20)


@pytest.mark.slow
def test_the_option_sends_them(model_folder: Path, collector: Collector) -> None:
    address = f"http://127.0.0.1:{collector.server_port}"
    roots = [path for path in sys.path if path.endswith(("/src", "/kernels", "/serving"))]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    command = [sys.executable, "-m", "trimodal", "serve", str(model_folder), "--port", "0"]
    with subprocess.Popen(
        [*command, "--telemetry", address],
        stdout=subprocess.PIPE,
        text=True,
        env={**kept, "PYTHONPATH": os.pathsep.join(roots)},
    ) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().partition(" at ")[2].partition(",")[0]
            answer = httpx.post(f"{url}/v1/embeddings", json={"input": WORD}, timeout=30)
        finally:
            server.terminate()
        assert server.wait(60) == 0
    assert {path for path, _ in collector.bodies} == {"/v1/traces", "/v1/metrics"}
    assert not any(WORD.encode() in body for _, body in collector.bodies)
    sent = [
        ExportTraceServiceRequest.FromString(body)
        for path, body in collector.bodies
        if path == "/v1/traces"
    ]
    resources = [one for request in sent for one in request.resource_spans]
    names = [span.name for one in resources for scope in one.scope_spans for span in scope.spans]
    assert answer.status_code == 400  # a model has to be named
    assert "POST /v1/embeddings" in names
    assert "service.name" in str(resources[0])
    assert "trimodal" in str(resources[0])
