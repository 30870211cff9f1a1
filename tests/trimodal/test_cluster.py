import os
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray._private.node import Node

from trimodal.cli import main
from trimodal.cluster import Cluster
from trimodal.data import tokenized
from trimodal.data.tokenized import tokenize_manifest
from trimodal.errors import ConfigError, DataError, StorageError
from trimodal.evaluation import embedding
from trimodal.processors import TrimodalProcessor
from trimodal.testing import (
    tiny_model,
    tiny_model_config,
    tiny_tokenizer,
    tiny_tokenizers,
    write_tiny_manifest,
)

pytestmark = pytest.mark.slow


HELPERS = ("start_monitor", "start_log_monitor", "start_api_server")
"""Of a cluster, for more machines, for logs that are not shown, and for jobs that are handed in."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Of two CPUs, in little memory, without helpers that have nothing to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trimodal.cluster.OBJECT_STORE", 80 * 2**20)
        for name in HELPERS:
            patch.setattr(Node, name, lambda _, **__: None)
        Cluster(cpus=2).connect()
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_manifest(tmp_path_factory.mktemp("cluster") / "corpus", rows=24)


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_results_come_back_as_they_are_and_in_order() -> None:
    def make() -> Callable[[Any], Any]:
        def step(part: Any) -> Any:
            if part == "bad":
                raise DataError("m.jsonl:3: text is empty")
            return (part, {"of": None})

        return step

    parts, found = [{"a": 1}, {"b": (1, 2)}, None, [{}], *range(20)], []
    with pytest.raises(DataError, match=r"^m\.jsonl:3: text is empty$"):
        found.extend(Cluster().map(make, [*parts, "bad"]))
    assert found == [(part, {"of": None}) for part in parts]

    def stranger() -> Callable[[Any], Any]:
        raise StorageError("m is not a model folder")

    with pytest.raises(StorageError, match=r"^m is not a model folder$"):
        list(Cluster().map(stranger, [1]))


def test_shards_are_those_of_one_process(manifest: Path, tmp_path: Path) -> None:
    for name, how in (("here", ("--workers", 1)), ("there", ("--ray", "local"))):
        assert run("data", "import", manifest, tmp_path / name, "--rows", 5, *how) == 0
    here, there = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("here", "there")
    )
    assert len(here) == 7
    assert here == there


def test_codes_are_those_of_one_process(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenized, "ROWS", 7)
    make = partial(TrimodalProcessor, tiny_model_config(), tiny_tokenizer(), tiny_tokenizers())
    counted: list[int] = []
    tokenize_manifest(manifest, tmp_path / "here.jsonl", make)
    tokenize_manifest(manifest, tmp_path / "there.jsonl", make, Cluster(), counted.append)
    assert counted == [7, 7, 7, 3]
    assert (tmp_path / "here.jsonl").read_bytes() == (tmp_path / "there.jsonl").read_bytes()


def test_vectors_are_those_of_one_process(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "ROWS", 7)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a worker has
    tiny_model().save_pretrained(tmp_path / "model")
    files = [tmp_path / name for name in ("here.npz", "there.npz")]
    for path, how in zip(files, ((), ("--ray", "local")), strict=True):
        assert run("embed", tmp_path / "model", "--data", manifest, "--out", path, *how) == 0
    torch.set_num_threads(threads)
    here, there = (dict(np.load(path, allow_pickle=False)) for path in files)
    assert here.keys() == there.keys() == {"id", "image", "text", "speech", "fused"}
    for name, expected in here.items():
        assert expected.shape[0] == 24
        assert there[name].tobytes() == expected.tobytes()


def test_nothing_is_told_about_its_use(cluster: None) -> None:
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'trimodal\[ray\]'"):
        next(Cluster().map(lambda: str, [1]))


def test_an_address_without_a_cluster_is_named() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"--ray: no cluster at {address}: .*refused"):
            Cluster(address).connect()
