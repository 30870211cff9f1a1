"""Shards in a bucket of a local S3 server: read, damaged, and trained on."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from trimodal.data import read_manifest
from trimodal.data.shards import Cuts, import_manifest
from trimodal.data.verify import verify
from trimodal.errors import DataError
from trimodal.storage import ShardFile
from trimodal.testing import tiny_tokenizer, write_tiny_manifest

BUCKET = "corpus"
ACCESS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """For all tests, as file systems remember where their server is."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ACCESS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield
    running.stop()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """The address of an import, beside its files in `tmp_path / "shards"`."""
    manifest = write_tiny_manifest(tmp_path / "data", rows=24)
    import_manifest(manifest, tmp_path / "shards", Cuts(rows=10))
    for path in (tmp_path / "shards").iterdir():
        put(f"{tmp_path.name}/{path.name}", path.read_bytes())
    return f"s3://{BUCKET}/{tmp_path.name}"


def put(name: str, content: bytes) -> None:
    boto3.client("s3").put_object(Bucket=BUCKET, Key=name, Body=content)


def test_a_bucket_holds_the_samples_that_were_uploaded(folder: str, tmp_path: Path) -> None:
    local, remote = read_manifest(tmp_path / "shards"), read_manifest(folder)
    assert [row.id for row in remote] == [row.id for row in local]
    assert remote[3].where == f"{folder}/index.jsonl:4"
    for a, b in zip(remote, local, strict=True):
        for x, y in ((a.image, b.image), (a.speech, b.speech)):
            assert x == y
            if isinstance(x, ShardFile) and isinstance(y, ShardFile):
                assert x.shard.startswith(folder)
                assert x.read() == y.read()
    assert list(verify(folder)) == []


def test_damage_in_a_bucket_is_named(folder: str, tmp_path: Path) -> None:
    name = "shard-00001.tar"
    content = bytearray((tmp_path / "shards" / name).read_bytes())
    content[content.index(b"\x89PNG") + 30] ^= 1
    put(f"{tmp_path.name}/{name}", bytes(content))
    (problem,) = verify(folder)
    assert problem.startswith(f"{folder}/{name}: bytes ")
    put(f"{tmp_path.name}/index.jsonl", (tmp_path / "shards" / "index.jsonl").read_bytes() + b"\n")
    with pytest.raises(DataError, match=r"/index\.jsonl is not what was imported"):
        read_manifest(folder)


def test_a_run_learns_the_same_from_a_bucket(folder: str, tmp_path: Path) -> None:
    (tmp_path / "text.model").write_bytes(tiny_tokenizer())
    stack = {"width": 32, "depth": 1, "num_heads": 2}
    tree = {
        "run_dir": "replaced",
        "data": {"train": ["replaced"], "tokenizer": str(tmp_path / "text.model")},
        "model": {
            **dict.fromkeys(("vision", "text", "speech", "trunk"), stack),
            "vision_input": {"patch_size": 4},
            "speech_input": {"num_mels": 16},
            "vocabulary": {"text": 512, "vision": 16, "speech": 16},
            "embedding_dim": 16,
        },
        "objectives": {"contrastive": {}},
        "training": {"max_steps": 6, "batch_size": 8, "warmup_steps": 2, "trackers": []},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    traces = []
    for name, place in (("local", str(tmp_path / "shards")), ("remote", folder)):
        run = tmp_path / name
        overrides = [f"run_dir={run}", f"data.train=[{place}]", "data.num_workers=1"]
        done = subprocess.run(
            [sys.executable, "-m", "trimodal.train", str(tmp_path / "run.yaml"), *overrides],
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        lines = (run / "metrics.jsonl").read_text().splitlines()
        traces.append([json.loads(line)["trace"] for line in lines])
    assert len(traces[0]) == 6
    assert traces[0] == traces[1]
