import base64
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from trimodal.models import TrimodalModel, cut
from trimodal_serving.engine import Engine

Server = Callable[..., Any]
WORDS = ["red", "green", "blue", "white"]


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, timeout=30) as client:
        yield client


@pytest.fixture
def name(client: httpx.Client) -> Iterator[str]:
    """An index with two fields, which the tests leave empty for others."""
    name = f"index-{uuid.uuid4().hex[:12]}"
    tree = {"name": name, "fields": {"year": "integer", "kind": "string"}}
    made = client.post("/v1/indexes", json=tree)
    assert made.status_code == 201, made.text
    yield name
    assert client.delete(f"/v1/indexes/{name}").status_code == 200
    assert client.get(f"/v1/indexes/{name}").status_code == 404


def put(client: httpx.Client, name: str, *items: Any) -> httpx.Response:
    tree = {"model": "tiny", "items": list(items)}
    return client.post(f"/v1/indexes/{name}/items", json=tree)


def code_of(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"], error["param"]


def test_items_have_the_vectors_of_the_library(
    client: httpx.Client, name: str, model: TrimodalModel, png: bytes, wav: bytes
) -> None:
    picture, sound = (base64.b64encode(data).decode() for data in (png, wav))
    answer = put(
        client,
        name,
        {"id": "t", "input": "red", "metadata": {"year": 1}, "payload": {"deep": [None]}},
        {"id": "i", "input": {"image": picture}},
        {"id": "a", "input": {"audio": sound}, "metadata": {"kind": "x", "year": None}},
        {"id": "f/ü", "input": {"text": "red", "image": picture}},
    )
    assert answer.json()["put"] == 4
    assert answer.json()["usage"]["total_tokens"] > 4
    expected = model.embed(
        text=["red", None, None, "red"],
        image=[None, png, None, png],
        speech=[None, None, wav, None],
    )["fused"]
    for i, (key, modality) in enumerate(
        [("t", "text"), ("i", "image"), ("a", "audio"), ("f%2F%C3%BC", "fused")]
    ):
        item = client.get(f"/v1/indexes/{name}/items/{key}").json()
        assert item["modality"] == modality
        assert np.abs(np.array(item["vector"]) - expected[i]).max() < 1e-6
    first = client.get(f"/v1/indexes/{name}/items/t").json()
    assert (first["metadata"], first["payload"]) == ({"year": 1}, {"deep": [None]})
    assert client.get(f"/v1/indexes/{name}").json() == {
        "object": "index",
        "name": name,
        "dimensions": 16,
        "fields": {"year": "integer", "kind": "string"},
        "items": 4,
    }
    assert name in [one["name"] for one in client.get("/v1/indexes").json()["data"]]


def test_shorter_vectors(client: httpx.Client, model: TrimodalModel) -> None:
    client.post("/v1/indexes", json={"name": "short", "dimensions": 8})
    put(client, "short", {"id": "a", "input": "red"}, {"id": "b", "vector": [2.0] + [0.0] * 7})
    vectors = [client.get(f"/v1/indexes/short/items/{i}").json()["vector"] for i in "ab"]
    assert client.delete("/v1/indexes/short").json()["deleted"]
    assert np.abs(vectors[0] - cut(model.embed(text=["red"])["text"], 8)[0]).max() < 1e-6
    assert vectors[1] == [1.0] + [0.0] * 7


def test_deleting(client: httpx.Client, name: str) -> None:
    items = [{"id": word, "input": word, "metadata": {"year": i}} for i, word in enumerate(WORDS)]
    put(client, name, *items)
    path = f"/v1/indexes/{name}/items/delete"
    assert client.post(path, json={"ids": ["red", "none"]}).json()["deleted"] == 1
    tree = {"filter": {"year": {"gte": 2}}}
    assert client.post(path, json=tree).json()["deleted"] == 2
    assert client.get(f"/v1/indexes/{name}/items/red").status_code == 404
    assert client.get(f"/v1/indexes/{name}").json()["items"] == 1
    refused = client.post(path, json={})
    assert code_of(refused) == (400, "invalid_input", None)
    refused = client.post(path, json={"ids": [""]})
    assert code_of(refused) == (400, "invalid_id", "ids[0]")


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        ("a", "invalid_type", "items[1]"),
        ({"input": "a"}, "missing_field", "items[1].id"),
        ({"id": "", "input": "a"}, "invalid_id", "items[1].id"),
        ({"id": 7, "input": "a"}, "invalid_id", "items[1].id"),
        ({"id": "a\0", "input": "a"}, "invalid_id", "items[1].id"),
        ({"id": "x" * 257, "input": "a"}, "invalid_id", "items[1].id"),
        ({"id": "good", "input": "a"}, "duplicate_id", "items[1].id"),
        ({"id": "a"}, "invalid_input", "items[1].input"),
        ({"id": "a", "input": "a", "vector": [1] * 16}, "invalid_input", "items[1].input"),
        ({"id": "a", "input": ""}, "empty_input", "items[1].input"),
        ({"id": "a", "input": {"image": "AAAA"}}, "invalid_image", "items[1].input"),
        ({"id": "a", "input": {"image": "http://x"}}, "url_not_allowed", "items[1].input"),
        ({"id": "a", "vector": [1.0] * 15}, "invalid_vector", "items[1].vector"),
        ({"id": "a", "vector": [0] * 16}, "invalid_vector", "items[1].vector"),
        ({"id": "a", "vector": ["1"] * 16}, "invalid_vector", "items[1].vector"),
        ({"id": "a", "vector": [10**400] * 16}, "invalid_vector", "items[1].vector"),
        (
            {"id": "a", "vector": [1] * 16, "modality": "video"},
            "invalid_modality",
            "items[1].modality",
        ),
        ({"id": "a", "input": "a", "metadata": 7}, "invalid_type", "items[1].metadata"),
        (
            {"id": "a", "input": "a", "metadata": {"year": "1"}},
            "invalid_metadata",
            "items[1].metadata.year",
        ),
        (
            {"id": "a", "input": "a", "metadata": {"colour": 1}},
            "unknown_field",
            "items[1].metadata.colour",
        ),
        (
            {"id": "a", "input": "a", "payload": "x" * 20_000},
            "payload_too_large",
            "items[1].payload",
        ),
        ({"id": "a", "input": "a", "text": "b"}, "unknown_field", "items[1].text"),
    ],
)
def test_a_bad_item_is_named_and_nothing_is_put(
    client: httpx.Client, name: str, item: Any, code: str, param: str
) -> None:
    refused = put(client, name, {"id": "good", "input": "red"}, item)
    assert code_of(refused) == (400, code, param)
    assert client.get(f"/v1/indexes/{name}").json()["items"] == 0


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"metadata": {"year": "1"}}, "`items[0].metadata.year` must be an integer"),
        (
            {"metadata": {"year": 2**70}},
            "`items[0].metadata.year` must be at least -2^63 and less than 2^63",
        ),
        ({"vector": [1.0]}, "`items[0].vector` must be a list of 16 numbers"),
        ({"vector": [0] * 16}, "`items[0].vector` must have a number that is not 0"),
        *(
            (
                {"vector": [number] * 16},
                "`items[0].vector` has numbers that are too large or too small to compute a norm "
                "of",
            )
            for number in (1e300, 1e200, 1e-200, 10**400)
        ),
    ],
)
def test_what_is_said_of_an_item_is_true(
    client: httpx.Client, name: str, item: dict[str, Any], message: str
) -> None:
    given = {"id": "a", "vector": [1] * 16} | item
    assert put(client, name, given).json()["error"]["message"] == message


@pytest.mark.parametrize(
    ("tree", "status", "code", "param"),
    [
        ({}, 400, "missing_field", "name"),
        ({"name": "../a"}, 400, "invalid_name", "name"),
        ({"name": "a/b"}, 400, "invalid_name", "name"),
        ({"name": "A"}, 400, "invalid_name", "name"),
        ({"name": "a", "dimensions": 9}, 400, "invalid_dimensions", "dimensions"),
        ({"name": "a", "fields": ["year"]}, 400, "invalid_fields", "fields"),
        ({"name": "a", "fields": {"Year": "string"}}, 400, "invalid_fields", "fields"),
        ({"name": "a", "fields": {"a`; --": "string"}}, 400, "invalid_fields", "fields"),
        ({"name": "a", "fields": {"id": "string"}}, 400, "invalid_fields", "fields"),
        ({"name": "a", "fields": {"not": "string"}}, 400, "invalid_fields", "fields"),
        ({"name": "a", "fields": {"year": "date"}}, 400, "invalid_fields", "fields.year"),
        ({"name": "a", "fields": {"year": ["string"]}}, 400, "invalid_fields", "fields.year"),
        ({"name": "a", "colour": 1}, 400, "unknown_field", "colour"),
    ],
)
def test_a_bad_index_is_named(
    client: httpx.Client, tree: Any, status: int, code: str, param: str
) -> None:
    assert code_of(client.post("/v1/indexes", json=tree)) == (status, code, param)


@pytest.mark.parametrize("path", ["..", "%2e%2e", "..%2Fsecret", "%00", "A", "a.lance"])
def test_paths_lead_nowhere_else(client: httpx.Client, path: str) -> None:
    for method in ("GET", "DELETE"):
        refused = client.request(method, httpx.URL(f"{client.base_url}/v1/indexes/{path}"))
        assert refused.status_code in (400, 404, 405)
        assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


def test_there_is_one_index_of_a_name(client: httpx.Client, name: str) -> None:
    refused = client.post("/v1/indexes", json={"name": name})
    assert code_of(refused) == (409, "index_exists", None)


def test_a_server_without_a_folder_has_none(model: TrimodalModel, serve: Server) -> None:
    with serve(Engine(lambda: model)) as server:
        url = server.wait_until_ready().url
        for method, path in (("GET", "/v1/indexes"), ("DELETE", "/v1/indexes/a")):
            assert code_of(httpx.request(method, url + path)) == (404, "no_indexes", None)
        tree = {"model": "tiny", "index": "a", "query": "a"}
        assert code_of(httpx.post(f"{url}/v1/search", json=tree)) == (404, "no_indexes", None)
