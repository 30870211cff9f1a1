import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import ray
from ray import serve

from trimodal.cluster import Cluster
from trimodal.errors import ConfigError
from trimodal.models import TrimodalModel
from trimodal.testing import assert_close, tiny_model
from trimodal_serving.keys import KeyFile
from trimodal_serving.ray_app import build

PATIENCE = 180.0
"""Seconds in which Ray starts or ends a replica, on a slow machine."""


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


def replicas() -> set[int]:
    """The processes that Ray runs as replicas, below this one."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith("ray::ServeReplica:default:trimodal"):
                found.add(process.pid)
    return found


def running() -> int:
    """How many replicas answer, as Ray has it."""
    deployment = serve.status().applications["default"].deployments["trimodal"]
    return sum(n for state, n in deployment.replica_states.items() if state == "RUNNING")


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.cluster
def test_a_replica_that_is_killed_is_replaced(client: httpx.Client, model: TrimodalModel) -> None:
    before = replicas()
    assert len(before) == running() == 2
    lost = min(before)
    psutil.Process(lost).kill()
    wait_until(lambda: running() == 2 and len(replicas() - {lost}) == 2)
    expected = model.embed(text=["a red circle"])["text"]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: embed(client, "a red circle"), range(8)))
    assert_close(np.stack(found), np.repeat(expected, 8, axis=0), "served-vs-offline")
    assert len(before & replicas()) == 1


@pytest.mark.cluster
def test_replicas_come_and_go_with_the_work(client: httpx.Client, folder: Path) -> None:
    """The last of the cluster's tests, as the deployment is another afterwards."""
    arguments = {"model": str(folder), "keys": str(folder.parent / "keys.json"), "cpus": "0.5"}
    few = {"min_replicas": "1", "max_replicas": "2", "in_flight": "1", "settle_seconds": "1"}
    serve.run(build({**arguments, **few}))
    wait_until(lambda: running() == 1)
    # so much that the time goes by in the replica and not on the way to it
    texts = ["a red circle"] * 1024
    busy, done = threading.Event(), threading.Event()

    def send(_: int) -> int:
        answered = 0
        while not done.is_set():
            answer = client.post("/v1/embeddings", json={"model": "tiny", "input": texts})
            answered += answer.status_code == 200
            busy.set()
        return answered

    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(send, i) for i in range(8)]
        try:
            busy.wait(PATIENCE)
            wait_until(lambda: running() == 2)
        finally:
            done.set()
        assert all(future.result() > 0 for future in sent)
    wait_until(lambda: running() == 1 and len(replicas()) == 1)
    embed(client, "a red circle")


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
