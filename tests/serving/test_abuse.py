"""What is sent by mistake or in malice, over real sockets; a good request is answered after each.

Bodies and media that are bad by themselves are in test_app.py, heads in test_connection.py.
"""

import base64
import contextlib
import http.client
import io
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, urlsplit

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

from trimodal.models import TrimodalModel, cut
from trimodal.testing import assert_close
from trimodal_serving.access import Access
from trimodal_serving.engine import Engine
from trimodal_serving.keys import SCOPES, KeyFile

BODY = b'{"model": "tiny", "input": "red"}'
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
POST = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
NEXT = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def exchanged(url: str, sent: bytes) -> bytes:
    """All that comes back until the server closes the connection."""
    address, received = urlsplit(url), b""
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(sent)
        while chunk := connection.recv(65_536):
            received += chunk
    return received


def answer_of(url: str, sent: bytes) -> tuple[int, Any]:
    """The status and the JSON of the first answer."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, json.loads(response.read())


@pytest.fixture
def served(base_url: str) -> Iterator[str]:
    """The address of the shared server, which is as good as before afterwards."""
    yield base_url
    tree = {"model": "tiny", "input": "red"}
    assert httpx.post(f"{base_url}/v1/embeddings", json=tree, timeout=30).status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        b"content-length: %d\r\ntransfer-encoding: chunked\r\n" % len(CHUNKS),
        b"content-length: %d\r\ntransfer-encoding: identity\r\n" % len(CHUNKS),
        b"content-length: %d\r\ntransfer-encoding: xchunked\r\n" % len(CHUNKS),
        b"content-length: +%d\r\n" % len(BODY),
        b"content-length: 0x5\r\n",
        b"content-length: 5, 5\r\n",
        b"content-length : 5\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding: identity\r\n",
        b"transfer-encoding: chunked, gzip\r\n",
        b"transfer-encoding: chunked, chunked\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        b'transfer-encoding: "chunked"\r\n',
        b"transfer-encoding:\x0bchunked\r\n",
        b"transfer-encoding : chunked\r\n",
        b"transfer-encoding:\r\n chunked\r\n",
        b"x-folded: a\r\n b\r\n",
        b"x-folded: a\r\n\tb\r\n",
        b"x-folded:\r\n b\r\n",
        b" x-folded: a\r\n",
        b"host: localhost\r\n .evil.org\r\n",
        b"host: evil.org\r\n",
        b"content-length: %d\r\ncontent-length: %d\r\n" % (len(CHUNKS), len(CHUNKS)),
        b"content-length: %d\r\ncontent-length: 0\r\n" % len(CHUNKS),
        b"content-length: -0\r\n",
        b"content-length: 5 5\r\n",
        b"content-length:\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"x: y\ncontent-length: 5\r\n",
        b"x: y\rcontent-length: 5\r\n",
        b"x y: z\r\n",
        b"x: \x00\r\n",
        b"\n",
    ],
    ids=str,
)
def test_a_body_whose_end_is_in_doubt_is_not_read(served: str, head: bytes) -> None:
    received = exchanged(served, POST + head + b"\r\n" + CHUNKS + NEXT)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b'"code": "bad_http"' in received
    assert received.count(b"HTTP/1.1 ") == 1, "what stands behind it is no request"


SIZE = b"%x" % len(BODY)


@pytest.mark.parametrize(
    "chunks",
    [
        SIZE + b"\n" + BODY + b"\r\n0\r\n\r\n",
        SIZE + b"\r" + BODY + b"\r\n0\r\n\r\n",
        SIZE + b"\r\n" + BODY + b"\n0\r\n\r\n",
        SIZE + b"\r\n" + BODY + b"\r\n0\n\r\n",
        SIZE + b"\r\n" + BODY + b"\r\n0\r\n\n",
        SIZE + b";a\nGET /livez\r\n" + BODY + b"\r\n0\r\n\r\n",
        SIZE + b';a="\r\n"\r\n' + BODY + b"\r\n0\r\n\r\n",
        SIZE + b";a\0\r\n" + BODY + b"\r\n0\r\n\r\n",
        SIZE + b" \r\n" + BODY + b"\r\n0\r\n\r\n",
        b" " + CHUNKS,
        b"+" + CHUNKS,
        b"-" + CHUNKS,
        b"0x" + CHUNKS,
        b"1" + b"0" * 14 + CHUNKS,
        b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
        CHUNKS[:-2] + b"content-length: 5\r\n\r\n",
        CHUNKS[:-2] + b"transfer-encoding: chunked\r\n\r\n",
        CHUNKS[:-2] + b"x: a\nb: c\r\n\r\n",
    ],
    ids=str,
)
def test_a_chunk_whose_end_is_in_doubt_is_not_read(served: str, chunks: bytes) -> None:
    received = exchanged(served, POST + b"transfer-encoding: chunked\r\n\r\n" + chunks + NEXT)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b'"code": "bad_http"' in received
    assert received.count(b"HTTP/1.1 ") == 1, "what stands behind it is no request"


def test_what_a_chunk_says_besides_is_passed_over(served: str) -> None:
    chunks = SIZE + b';a=b;c="d"\r\n' + BODY + b"\r\n0\r\n\r\n"
    received = exchanged(served, POST + b"transfer-encoding: chunked\r\n\r\n" + chunks + NEXT)
    assert received.count(b"HTTP/1.1 200 ") == 2


UPGRADE = b"connection: upgrade\r\nupgrade: h2c\r\n"


@pytest.mark.parametrize(
    "length", [b"content-length: %d\r\n" % len(NEXT), b"transfer-encoding: chunked\r\n"], ids=str
)
@pytest.mark.parametrize("pause", [0.0, 0.2])
def test_a_body_behind_another_protocol_is_no_request(
    served: str, length: bytes, pause: float
) -> None:
    address, received = urlsplit(served), b""
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(POST + UPGRADE + length + b"\r\n")
        time.sleep(pause)
        with contextlib.suppress(ConnectionError):
            connection.sendall(NEXT)
            while chunk := connection.recv(65_536):
                received += chunk
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"must have no body" in received
    assert received.count(b"HTTP/1.1 ") == 1


def test_a_request_for_another_protocol_is_answered_in_this_one_and_is_the_last(
    served: str,
) -> None:
    head = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n" + UPGRADE + b"\r\n"
    received = exchanged(served, head + NEXT)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in received
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("coding", [b"chunked", b"CHUNKED", b"\tchunked"])
def test_chunks_are_read_however_they_are_spelt(served: str, coding: bytes) -> None:
    head = b"transfer-encoding:" + coding + b"\r\n\r\n"
    received = exchanged(served, POST + head + CHUNKS + NEXT)
    assert received.count(b"HTTP/1.1 200 ") == 2


def test_compressed_chunks_are_refused(served: str) -> None:
    head = b"transfer-encoding: gzip, chunked\r\n\r\n"
    status, tree = answer_of(served, POST + head + CHUNKS)
    assert (status, tree["error"]["code"]) == (415, "unsupported_content_encoding")


@pytest.fixture(scope="module")
def guarded(
    model: TrimodalModel, tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., Any]
) -> Iterator[tuple[str, str]]:
    """The address of a server with keys, and a key that opens everything."""
    folder: Path = tmp_path_factory.mktemp("guarded")
    file = KeyFile(folder / "keys.json")
    _, secret = file.add(tenant="alice", scopes=SCOPES)
    options: dict[str, Any] = {"access": Access(file), "indexes": folder / "indexes"}
    with serve(Engine(lambda: model), **options) as server:
        yield server.wait_until_ready(secret).url, secret


ROUTES = ("/metrics", "/v1/models", "/v1/embeddings", "/v1/indexes", "/", "/openapi.json")
SPELT = (
    "{0}",
    "/{0}",
    "//{0}",
    "/%2e%2e{0}",
    "/livez/%2e%2e{0}",
    "/livez/..{0}",
    "/livez%2f..{0}",
    "/livez/%2e%2e%2f{0}",
    "/livez;{0}",
    "/livez%3f{0}",
    "/livez%23{0}",
    "/livez%00{0}",
    "/livez%0d%0a{0}",
    "/.{0}",
    "/playground/..{0}",
    "{0}/",
    "{0}/../livez",
    "{0}%2f..%2flivez",
    "{0}?/livez",
    "{0}#/livez",
    "http://localhost{0}",
    "http://localhost/{0}",
    "http://localhost/livez/..{0}",
    "http://user@localhost:1{0}",
    "https://evil.org{0}",
)


def test_no_spelling_of_a_path_opens_it_without_a_key(guarded: tuple[str, str]) -> None:
    url, secret = guarded
    paths = [form.format(route) for form in SPELT for route in ROUTES]
    paths += [form.format(route.replace("/", "%2f")) for form in SPELT for route in ROUTES]
    for method in ("GET", "POST"):
        for path in paths:
            line = f"{method} {path} HTTP/1.1\r\n"
            head = f"{line}host: localhost\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
            status, tree = answer_of(url, head.encode())
            assert status in (400, 401), (method, path)
            assert tree["error"]["code"] in ("bad_http", "missing_api_key"), (method, path)
    key = {"authorization": f"Bearer {secret}"}
    tree = {"model": "tiny", "input": "red"}
    answer = httpx.post(f"{url}/v1/embeddings", json=tree, headers=key, timeout=30)
    assert answer.status_code == 200
    series = httpx.get(f"{url}/metrics", headers=key).text
    answered = re.findall(r'requests_total\{code="200",route="(.+)"\}', series)
    assert set(answered) == {"/readyz", "/v1/embeddings"}, "what was asked for with the key"


def test_a_path_may_have_the_address_before_it(served: str) -> None:
    head = b"GET http://localhost/livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
    assert answer_of(served, head) == (200, {"status": "live"})


def test_what_clients_make_up_makes_no_series(served: str) -> None:
    draw = np.random.default_rng(0)

    def one(client: httpx.Client, i: int) -> None:
        name = quote_from_bytes(draw.bytes(12), safe="")
        path = ("/" + name, "/v1/models/" + name, "/v1/" + name, "/v1/embeddings")[i % 4]
        method = ("GET", "POST")[i // 4 % 2] if i % 4 < 3 else "POST"
        raw = draw.bytes(200) if i % 8 else json.dumps({"model": name}).encode()
        headers = {"content-type": "application/json", "x-request-id": name[:20]}
        answer = client.request(method, path, content=raw, headers=headers)
        assert 400 <= answer.status_code < 500

    def series(client: httpx.Client) -> int:
        return len(client.get("/metrics").text.splitlines())

    with httpx.Client(base_url=served, timeout=30) as client:
        for i in range(16):  # one of each kind
            one(client, i)
        series(client)
        before = series(client)
        for i in range(1000):
            one(client, i)
        assert series(client) == before


NUL = "red\0blue"
MESSAGES = [{"role": "user", "content": NUL}]
WITH_NUL: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("/v1/embeddings", {"input": NUL}),
    "nothing-else": ("/v1/embeddings", {"input": ["\0", "\0\0"]}),
    "media": ("/v1/embeddings", {"input": [{"image": NUL}]}),
    "model": ("/v1/embeddings", {"input": "red", "model": NUL}),
    "field": ("/v1/embeddings", {"input": "red", NUL: NUL}),
    "tokens": ("/v1/tokens/encode", {"modality": "text", "data": NUL}),
    "chat": ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 2}),
    "speech": ("/v1/audio/speech", {"input": NUL, "voice": "default"}),
    "picture": ("/v1/images/generations", {"prompt": NUL}),
    "index": ("/v1/indexes", {"name": NUL}),
    "search": ("/v1/search", {"index": NUL, "query": NUL}),
}


@pytest.mark.parametrize(("path", "tree"), WITH_NUL.values(), ids=WITH_NUL)
def test_nul_is_text_or_refused(served: str, path: str, tree: dict[str, Any]) -> None:
    answer = httpx.post(f"{served}{path}", json={"model": "tiny", **tree}, timeout=60)
    assert answer.status_code < 500, answer.text
    assert answer.is_success or answer.json()["error"]["code"]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b"[" * 500_000 + b"]" * 500_000,
        b'{"a":' * 200_000,
        b'{"model": "tiny", "input": ' + b"[" * 400_000 + b"]" * 400_000 + b"}",
    ],
    ids=["open", "lists", "objects", "inside"],
)
def test_json_that_is_nested_without_end_is_refused(served: str, body: bytes) -> None:
    head = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    status, tree = answer_of(served, POST + head + body)
    assert (status, tree["error"]["code"]) == (400, "bad_json")


def vector_of(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["data"][0]["embedding"], np.float32)


def made(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def recorded(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, 16_000, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def test_what_looks_alike_is_not_taken_for_the_same(base_url: str, model: TrimodalModel) -> None:
    """Pictures of one size and sounds of one length, over and over, whole and cut."""
    draw = np.random.default_rng(0)
    pictures = [made(draw.integers(0, 256, (7, 9, 3), dtype=np.uint8)) for _ in range(4)]
    sounds = [recorded(draw.uniform(-0.5, 0.5, 4000)) for _ in range(4)]
    expected = {
        "image": [model.embed(image=[file])["image"] for file in pictures],
        "speech": [model.embed(speech=[file])["speech"] for file in sounds],
    }
    cases = [
        (kind, file, row, dimensions)
        for kind, files in (("image", pictures), ("speech", sounds))
        for dimensions in (16, 8, 16)
        for file, row in zip(files, expected[kind], strict=True)
    ]
    with httpx.Client(base_url=base_url, timeout=30) as client:
        for kind, file, row, dimensions in cases:
            tree = {"model": "tiny", "input": [base64.b64encode(file).decode()]}
            tree |= {"modality": kind, "dimensions": dimensions}
            found = vector_of(client.post("/v1/embeddings", json=tree))
            assert_close(found, cut(row, dimensions)[0], "served-vs-offline")


@pytest.mark.parametrize("shape", [(1, 1, 3), (65_500, 1, 3), (1, 65_500, 3)], ids=str)
def test_a_picture_of_any_shape_is_taken(served: str, shape: tuple[int, ...]) -> None:
    file = base64.b64encode(made(np.zeros(shape, np.uint8))).decode()
    tree = {"model": "tiny", "input": [file], "modality": "image"}
    answer = httpx.post(f"{served}/v1/embeddings", json=tree, timeout=30)
    assert np.isfinite(vector_of(answer)).all()
