import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from trimodal.models import TrimodalModel
from trimodal_serving.engine import Engine

TEXTS = ["red", "green", "a blue square", "white", "红色的方块", "方块是蓝色"]


@pytest.fixture(scope="module")
def client(base_url: str, png: bytes, wav: bytes) -> Iterator[httpx.Client]:
    """Of a server with an index of texts, pictures and speech."""
    with httpx.Client(base_url=base_url, timeout=30) as client:
        client.post("/v1/indexes", json={"name": "mixed", "fields": {"rank": "integer"}})
        media = [{"image": base64.b64encode(one).decode()} for one in [png]]
        media.append({"audio": base64.b64encode(wav).decode()})
        inputs = [*TEXTS, *media]
        items = [
            {"id": str(i), "input": one, "metadata": {"rank": i}} for i, one in enumerate(inputs)
        ]
        put = client.post("/v1/indexes/mixed/items", json={"model": "tiny", "items": items})
        assert put.status_code == 200, put.text
        yield client
        client.delete("/v1/indexes/mixed")


def search(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/search", json={"model": "tiny", "index": "mixed", **fields})


@pytest.fixture(scope="module")
def vectors(model: TrimodalModel, png: bytes, wav: bytes) -> np.ndarray:
    texts = model.embed(text=TEXTS)["text"]
    others = model.embed(image=[png, None], speech=[None, wav])["fused"]
    return np.concatenate([texts, others])


def test_a_query_of_any_kind_finds_all_kinds_in_the_order_of_the_library(
    client: httpx.Client, model: TrimodalModel, vectors: np.ndarray, png: bytes, wav: bytes
) -> None:
    picture, sound = (base64.b64encode(data).decode() for data in (png, wav))
    queries = ["green", {"image": picture}, {"audio": sound}, {"text": "red", "audio": sound}]
    found = model.embed(
        text=["green", None, None, "red"],
        image=[None, png, None, None],
        speech=[None, None, wav, wav],
    )["fused"]
    for query, vector in zip(queries, found, strict=True):
        answer = search(client, query=query).json()
        scores = vectors @ vector
        assert [int(one["id"]) for one in answer["data"]] == np.argsort(-scores).tolist()
        assert (
            np.abs(np.array([o["score"] for o in answer["data"]]) - -np.sort(-scores)).max() < 1e-5
        )
        assert [one["index"] for one in answer["data"]] == list(range(8))
        assert answer["usage"]["total_tokens"] > 0


def test_a_text_finds_among_pictures_alone(client: httpx.Client) -> None:
    (found,) = search(client, query="red", filter={"modality": "image"}).json()["data"]
    assert (found["id"], found["modality"], found["metadata"]) == ("6", "image", {"rank": 6})
    tree = {"or": [{"modality": "audio"}, {"rank": {"lt": 2}}]}
    data = search(client, query="red", filter=tree).json()["data"]
    assert sorted(one["id"] for one in data) == ["0", "1", "7"]


def test_a_vector_is_a_query_too(client: httpx.Client, vectors: np.ndarray) -> None:
    answer = search(client, vector=(3 * vectors[4]).tolist(), k=2, with_vectors=True).json()
    assert answer["data"][0]["id"] == "4"
    assert len(answer["data"]) == 2
    assert answer["data"][0]["score"] == pytest.approx(1, abs=1e-6)
    assert np.abs(np.array(answer["data"][0]["vector"]) - vectors[4]).max() < 1e-6
    assert "usage" not in answer


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({}, 400, "invalid_input", None),
        ({"query": "a", "vector": [1] * 16}, 400, "invalid_input", None),
        ({"query": ["a", "b"]}, 400, "invalid_type", "query"),
        ({"query": {"image": "AAAA"}}, 400, "invalid_image", "query"),
        ({"query": "red " * 99}, 400, "context_length_exceeded", "query"),
        ({"vector": [1]}, 400, "invalid_vector", "vector"),
        ({"query": "a", "k": 0}, 400, "invalid_k", "k"),
        ({"query": "a", "k": 1001}, 400, "invalid_k", "k"),
        ({"query": "a", "filter": "rank = 1"}, 400, "invalid_filter", "filter"),
        ({"query": "a", "filter": {"f_rank": 1}}, 400, "invalid_filter", "filter"),
        ({"query": "a", "index": "other"}, 404, "index_not_found", None),
        ({"query": "a", "index": "../mixed"}, 400, "invalid_name", "name"),
        ({"query": "a", "model": "other"}, 404, "model_not_found", "model"),
        ({"query": "a", "colour": 1}, 400, "unknown_field", "colour"),
    ],
)
def test_a_bad_request_is_named(
    client: httpx.Client, fields: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    refused = search(client, **fields)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (status, code, param)


def test_an_index_is_kept_and_is_that_of_its_model(
    model: TrimodalModel, model_folder: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    tree = {"model": "tiny", "index": "kept", "query": "red"}
    with serve(Engine(lambda: model), indexes=tmp_path) as server:
        url = server.wait_until_ready().url
        httpx.post(f"{url}/v1/indexes", json={"name": "kept"})
        items = [{"id": text, "input": text} for text in TEXTS]
        httpx.post(f"{url}/v1/indexes/kept/items", json={"model": "tiny", "items": items})
        before = httpx.post(f"{url}/v1/search", json=tree).json()["data"]
    with serve(Engine(lambda: model), indexes=tmp_path) as server:
        url = server.wait_until_ready().url
        assert httpx.post(f"{url}/v1/search", json=tree).json()["data"] == before
        assert len(before) == len(TEXTS)
    other = TrimodalModel.from_pretrained(model_folder)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    other.processor = model.processor
    with serve(Engine(lambda: other), indexes=tmp_path) as server:
        url = server.wait_until_ready().url
        refused = httpx.post(f"{url}/v1/search", json=tree)
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            409,
            "index_of_another_model",
        )
        assert httpx.get(f"{url}/v1/indexes/kept").json()["items"] == len(TEXTS)
        assert httpx.delete(f"{url}/v1/indexes/kept").status_code == 200
