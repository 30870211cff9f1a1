import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import ray
from ray import serve

from trimodal.cluster import Cluster
from trimodal.errors import ConfigError
from trimodal.models import TrimodalModel
from trimodal.testing import assert_close, tiny_model
from trimodal_serving.keys import KeyFile
from trimodal_serving.ray_app import build


@pytest.fixture(scope="module")
def model() -> TrimodalModel:
    return tiny_model()


@pytest.fixture(scope="module")
def folder(model: TrimodalModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ray") / "tiny" / "model"
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    """Of a cluster of this machine, on which the model has two replicas."""
    keys = folder.parent / "keys.json"
    _, secret = KeyFile(keys).add(tenant="alice", scopes=("embed",))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trimodal.cluster.OBJECT_STORE", 80 * 2**20)
        Cluster(cpus=2).connect()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    arguments = {"model": str(folder), "keys": str(keys), "cpus": "0.5"}
    serve.run(build({**arguments, "min_replicas": "2", "max_replicas": "2"}))
    headers = {"authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as made:
        yield made
    serve.shutdown()
    ray.shutdown()


def embed(client: httpx.Client, text: str) -> np.ndarray:
    answer = client.post("/v1/embeddings", json={"model": "tiny", "input": text})
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["data"][0]["embedding"], dtype=np.float32)


@pytest.mark.cluster
def test_replicas_answer_as_the_library_does(client: httpx.Client, model: TrimodalModel) -> None:
    texts = [f"a {i} red circle" for i in range(40)]
    expected = model.embed(text=texts)["text"]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: embed(client, text), texts))
    assert_close(np.stack(found), expected, "served-vs-offline")


@pytest.mark.cluster
def test_only_keys_are_let_in(client: httpx.Client) -> None:
    answer = client.get("/v1/models", headers={"authorization": "Bearer wrong"})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "model: missing"),
        ({"model": "m"}, "keys: missing; make some"),
        ({"model": "m", "keys": "k", "weights": "int4"}, "weights: must be one of fp32, bf16"),
        ({"model": "m", "keys": "k", "min_replicas": 9}, "min_replicas: must be at most"),
        ({"model": "m", "keys": "k", "replicas": "2"}, "replicas"),
        ({"model": "m", "keys": "k", "fetch_from": "['a.org', '*']"}, "fetch from"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(arguments)
