"""Two models behind one address: what a request calls its model decides who answers."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from trimodal_serving.catalog import Catalog
from trimodal_serving.embeddings import SMALL_BYTES
from trimodal_serving.engine import Engine
from trimodal_serving.errors import ServingError
from trimodal_serving.service import Service

JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=x"}


def catalog(*names: str) -> Catalog:
    absent: dict[str, Any] = dict.fromkeys(names)
    return Catalog(absent)


def of(names: str, body: bytes | str, path: str | None = None, **headers: str) -> str:
    """The name of the model that answers."""
    heads = {key.replace("_", "-"): value for key, value in headers.items()}
    data = body.encode() if isinstance(body, str) else body
    tree = {} if path is None else {"model": path}
    return asyncio.run(catalog(*names.split()).of(tree, heads, data)).name


def form(name: str) -> bytes:
    parts = [("file", "a"), ("file", "b"), ("model", name)]
    lines = [f'--x\r\ncontent-disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in parts]
    return ("".join(lines) + "--x--\r\n").encode()


@pytest.mark.parametrize("name", ["one", "two"])
@pytest.mark.parametrize("padding", [0, SMALL_BYTES])
def test_the_body_names_a_model(name: str, padding: int) -> None:
    assert of("one two", json.dumps({"input": "x" * padding, "model": name})) == name
    assert of("one two", form(name), content_type=FORM["content-type"]) == name
    assert of("one two", b"", path=name) == name


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "{}", '{"model": null}', '{"model": 7}', '{"model": "a", "model": "b"}']
)
def test_the_first_answers_what_names_none(body: str) -> None:
    assert of("one two", body) == "one"


@pytest.mark.parametrize("names", ["one", "one two"])
def test_another_name_is_refused(names: str) -> None:
    with pytest.raises(ServingError) as caught:
        of(names, b"", path="three")
    assert caught.value.code == "model_not_found"
    for name in names.split():
        assert f"`{name}`" in caught.value.message


def test_a_body_may_not_name_what_is_not_served() -> None:
    with pytest.raises(ServingError, match="this server has `one`, `two`"):
        of("one two", '{"model": "three"}')


class Failing:
    """A service that cannot start, or never does."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.ended = False

    async def start(self) -> None:
        if self.fails:
            raise RuntimeError("broken")
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


def test_one_that_cannot_start_stops_the_start_of_all() -> None:
    services: dict[str, Any] = {"one": Failing(fails=False), "two": Failing(fails=True)}
    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(Catalog(services).start())
    assert services["one"].ended


@pytest.fixture(scope="module")
def client(model: Any, turned: Any, serve: Callable[..., Any]) -> Iterator[httpx.Client]:
    others: dict[str, Service] = {"other": Engine(lambda: turned)}
    with serve(Engine(lambda: model), services=others) as server:
        server.wait_until_ready()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            yield client


def vector(answer: httpx.Response) -> np.ndarray:
    return np.array(answer.json()["data"][0]["embedding"], np.float32)


def test_each_model_answers_under_its_name(client: httpx.Client) -> None:
    assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["tiny", "other"]
    assert client.get("/v1/models/other").json()["id"] == "other"
    one, two = (
        client.post("/v1/embeddings", json={"model": name, "input": "red"})
        for name in ("tiny", "other")
    )
    assert (one.json()["model"], two.json()["model"]) == ("tiny", "other")
    assert np.array_equal(vector(one), -vector(two))
    files = {"model": (None, "other"), "text": (None, "red")}
    assert np.array_equal(vector(client.post("/v1/embeddings", files=files)), vector(two))
    first = client.post("/embed", json={"inputs": "red"}).json()[0]
    assert np.array_equal(np.array(first, np.float32), vector(one))
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["red"]}
    answer = client.post("/v2/models/other/infer", json={"inputs": [tensor]}).json()
    assert answer["model_name"] == "other"
    assert np.array_equal(np.array(answer["outputs"][0]["data"], np.float32), vector(two))
    assert client.get("/v2/models/other/ready").status_code == 200


def test_models_are_listed_as_soon_as_they_are_loaded(
    model: Any, turned: Any, serve: Callable[..., Any]
) -> None:
    gates = [threading.Event(), threading.Event()]

    def behind(gate: threading.Event, loaded: Any) -> Any:
        gate.wait(20)
        return loaded

    others: dict[str, Service] = {"other": Engine(lambda: behind(gates[1], turned))}
    with (
        serve(Engine(lambda: behind(gates[0], model)), services=others) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):

        def listed() -> list[str]:
            answer = client.get("/v1/models")
            if answer.status_code == 503:
                assert answer.json()["error"]["code"] == "loading"
                return []
            return [card["id"] for card in answer.json()["data"]]

        assert listed() == []
        gates[1].set()
        while not (names := listed()):
            time.sleep(0.01)
        assert names == ["other"]
        assert client.get("/v1/models/tiny").status_code == 503
        assert client.get("/readyz").status_code == 503
        tree = {"model": "other", "input": "red"}
        assert client.post("/v1/embeddings", json=tree).status_code == 200
        gates[0].set()
        server.wait_until_ready()
        assert listed() == ["tiny", "other"]


def test_each_model_has_its_indexes(
    model: Any, turned: Any, serve: Callable[..., Any], tmp_path: Path
) -> None:
    others: dict[str, Service] = {"other": Engine(lambda: turned)}
    with serve(Engine(lambda: model), services=others, indexes=tmp_path) as server:
        server.wait_until_ready()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            made = client.post("/v1/indexes", json={"name": "pets", "model": "other"})
            assert made.status_code == 201
            items = [{"id": "a", "input": {"text": "red"}}]
            put = {"items": items, "model": "tiny"}
            refused = client.post("/v1/indexes/pets/items", json=put)
            assert refused.json()["error"]["code"] == "index_of_another_model"
            put["model"] = "other"
            assert client.post("/v1/indexes/pets/items", json=put).status_code == 200
            query = {"model": "other", "index": "pets", "query": "red"}
            (found,) = client.post("/v1/search", json=query).json()["data"]
            assert found["id"] == "a"
            assert found["score"] == pytest.approx(1)
