"""All shapes of one thing: the same inputs give the same numbers through each."""

import base64
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from trimodal.models import TrimodalModel, cut
from trimodal_serving.app import create_app
from trimodal_serving.engine import Engine
from trimodal_serving.openapi import OPERATIONS

Ask = Callable[[httpx.Client, list[bytes], list[str]], np.ndarray]
TEXTS = ["a red square", "红色的方块", "blue"]


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, timeout=30) as client:
        yield client


def asked(client: httpx.Client, path: str, tree: dict[str, Any]) -> Any:
    response = client.post(path, json=tree)
    assert response.status_code == 200, response.text
    return response.json()


def rows(items: list[dict[str, Any]]) -> np.ndarray:
    return np.array([item["embedding"] for item in items], np.float32)


def url(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def unpacked(text: str) -> list[float]:
    return np.frombuffer(base64.b64decode(text), "<f4").tolist()


def openai(client: httpx.Client, pictures: list[bytes], texts: list[str]) -> np.ndarray:
    inputs = [*texts, *({"image": url(one)} for one in pictures)]
    return rows(asked(client, "/v1/embeddings", {"model": "tiny", "input": inputs})["data"])


def openai_base64(client: httpx.Client, pictures: list[bytes], texts: list[str]) -> np.ndarray:
    inputs = [*({"text": one} for one in texts), *({"image": {"url": url(p)}} for p in pictures)]
    tree = {"model": "tiny", "input": inputs, "encoding_format": "base64"}
    data = asked(client, "/v1/embeddings", tree)["data"]
    return np.array([unpacked(item["embedding"]) for item in data], np.float32)


def openai_bytes(client: httpx.Client, pictures: list[bytes], texts: list[str]) -> np.ndarray:
    """Multipart in, floats as they are out."""
    parts: list[Any] = [("model", (None, "tiny"))]
    parts += [("text", (None, text.encode())) for text in texts]
    parts += [("file", ("a.png", picture)) for picture in pictures]
    accept = {"accept": "application/octet-stream"}
    response = client.post("/v1/embeddings", files=parts, headers=accept)
    assert response.headers["content-type"] == "application/octet-stream"
    shape = [int(size) for size in response.headers["x-embedding-shape"].split(",")]
    return np.frombuffer(response.content, "<f4").reshape(shape)


def conversations(client: httpx.Client, pictures: list[bytes], texts: list[str]) -> np.ndarray:
    parts: list[Any] = [{"type": "text", "text": text} for text in texts]
    parts += [{"type": "image_url", "image_url": {"url": url(one)}} for one in pictures]
    messages = [[{"role": "user", "content": [part]}] for part in parts]
    return rows(asked(client, "/v1/embeddings", {"model": "tiny", "messages": messages})["data"])


def pieces(client: httpx.Client, pictures: list[bytes], texts: list[str]) -> np.ndarray:
    """Texts by way of their token ids."""
    inputs: list[Any] = []
    for text in texts:
        tree = {"model": "tiny", "modality": "text", "data": text}
        inputs += asked(client, "/v1/tokens/encode", tree)["codes"]
    inputs += [{"image": base64.b64encode(one).decode()} for one in pictures]
    tree = {"model": "tiny", "input": inputs, "token_ids": True}
    return rows(asked(client, "/v1/embeddings", tree)["data"])


def voyage(client: httpx.Client, pictures: list[bytes], texts: list[str]) -> np.ndarray:
    parts: list[Any] = [{"type": "text", "text": text} for text in texts]
    parts += [{"type": "image_base64", "image_base64": url(one)} for one in pictures]
    tree = {"model": "tiny", "inputs": [{"content": [part]} for part in parts]}
    return rows(asked(client, "/v1/multimodalembeddings", tree)["data"])


def cohere(client: httpx.Client, pictures: list[bytes], texts: list[str]) -> np.ndarray:
    lists = {"texts": texts, "images": [url(one) for one in pictures]}
    found = []
    for name, values in lists.items():
        tree = {"model": "tiny", name: values, "embedding_types": ["float", "base64"]}
        embeddings = asked(client, "/v2/embed", tree)["embeddings"]
        assert [unpacked(one) for one in embeddings["base64"]] == [
            np.array(one, np.float32).tolist() for one in embeddings["float"]
        ]
        found += embeddings["float"]
    return np.array(found, np.float32)


def tei(client: httpx.Client, pictures: list[bytes], texts: list[str]) -> np.ndarray:
    inputs = [*texts, *({"image": url(one)} for one in pictures)]
    return np.array(asked(client, "/embed", {"inputs": inputs}), np.float32)


def kserve(client: httpx.Client, pictures: list[bytes], texts: list[str]) -> np.ndarray:
    tensors = {"text": texts, "image": [url(one) for one in pictures]}
    found = []
    for name, data in tensors.items():
        tensor = {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": data}
        (output,) = asked(client, "/v2/models/tiny/infer", {"inputs": [tensor]})["outputs"]
        found.append(np.array(output["data"], np.float32).reshape(output["shape"]))
    return np.concatenate(found)


SHAPES = (
    openai,
    openai_base64,
    openai_bytes,
    conversations,
    pieces,
    voyage,
    cohere,
    tei,
    kserve,
)


@pytest.fixture(scope="module")
def expected(model: TrimodalModel, png: bytes) -> np.ndarray:
    texts = model.embed(text=TEXTS)["text"]
    return np.concatenate([texts, model.embed(image=[png])["image"]])


@pytest.mark.parametrize("ask", SHAPES, ids=lambda ask: ask.__name__)
def test_every_shape_gives_the_numbers_of_the_library(
    client: httpx.Client, png: bytes, expected: np.ndarray, ask: Ask
) -> None:
    vectors = ask(client, [png], TEXTS)
    assert vectors.shape == expected.shape
    assert np.abs(vectors - expected).max() < 1e-6


def test_every_route_is_described_and_nothing_else_is(model: TrimodalModel) -> None:
    app = create_app({"tiny": Engine(lambda: model)}, 1000, playground=False).app
    assert isinstance(app, FastAPI)
    routes = {
        (method, re.sub(r":path\b", "", route.path))
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert len(routes) == len(app.routes)
    assert routes == {(one.method, one.path) for one in OPERATIONS}
    assert len(OPERATIONS) == len(routes)


def test_paths_of_others_answer_alike(client: httpx.Client) -> None:
    for path, alias in (("/readyz", "/health"), ("/v1/models", "/models")):
        assert client.get(alias).json() == client.get(path).json()
    tree = {"model": "tiny", "input": TEXTS}
    assert asked(client, "/embeddings", tree) == asked(client, "/v1/embeddings", tree)


def test_lengths_are_cut_alike(client: httpx.Client, expected: np.ndarray) -> None:
    short = cut(expected[:1], 8)
    text = TEXTS[:1]
    found = [
        rows(asked(client, path, {"model": "tiny", "input": text, key: 8})["data"])
        for path, key in (("/v1/embeddings", "dimensions"), ("/v1/embeddings", "output_dimension"))
    ]
    found.append(np.array(asked(client, "/embed", {"inputs": text, "dimensions": 8}), np.float32))
    tree: dict[str, Any] = {"model": "tiny", "texts": text, "output_dimension": 8}
    found.append(np.array(asked(client, "/v2/embed", tree)["embeddings"]["float"], np.float32))
    tree = {"model": "tiny", "inputs": [{"content": text[0]}], "output_dimension": 8}
    found.append(rows(asked(client, "/v1/multimodalembeddings", tree)["data"]))
    for vectors in found:
        assert np.abs(vectors - short).max() < 1e-6
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6


def test_number_types_agree(client: httpx.Client) -> None:
    text = TEXTS[0]
    for dtype in ("int8", "uint8", "binary", "ubinary"):
        tree: dict[str, Any] = {"model": "tiny", "input": text, "embedding_dtype": dtype}
        first = asked(client, "/v1/embeddings", tree)["data"][0]["embedding"]
        tree = {"model": "tiny", "input": text, "output_dtype": dtype}
        assert asked(client, "/v1/embeddings", tree)["data"][0]["embedding"] == first
        tree = {"model": "tiny", "texts": [text], "embedding_types": [dtype]}
        assert asked(client, "/v2/embed", tree)["embeddings"][dtype] == [first]
        tree = {"model": "tiny", "inputs": [{"content": text}], "output_dtype": dtype}
        assert asked(client, "/v1/multimodalembeddings", tree)["data"][0]["embedding"] == first
        tree |= {"output_encoding": "base64"}
        packed = asked(client, "/v1/multimodalembeddings", tree)["data"][0]["embedding"]
        sign = "b" if dtype in ("int8", "binary") else "B"
        assert [*struct.unpack(f"{len(first)}{sign}", base64.b64decode(packed))] == first
