"""Shards in a bucket of a local S3 server: read, damaged, and trained on."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from trimodal.cli import main
from trimodal.data import read_manifest, read_manifests, shards
from trimodal.data.shards import Cuts, import_manifest
from trimodal.data.splitting import split_manifest
from trimodal.data.verify import verify
from trimodal.errors import DataError
from trimodal.storage import ShardFile, read_bytes
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


def test_a_manifest_is_imported_into_a_bucket_and_split_there(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, address = tmp_path / "data" / "train.jsonl", f"{folder}-straight"
    assert main(["data", "import", str(manifest), address, "--rows", "10", "--workers", "1"]) == 0
    found = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"{tmp_path.name}-straight/")
    names = {each["Key"].rpartition("/")[2] for each in found["Contents"]}
    assert names == {path.name for path in (tmp_path / "shards").iterdir()}
    for name in names:
        assert read_bytes(f"{address}/{name}") == (tmp_path / "shards" / name).read_bytes()

    def refuse(_: object) -> int:
        raise AssertionError("what is there is not written again")

    monkeypatch.setattr(shards, "write_shard", refuse)
    assert import_manifest(manifest, address, Cuts(rows=10)).rows == 24
    splits = f"{folder}-splits"
    shares = ["--val", "0.2", "--test", "0.2", "--apart"]
    assert main(["data", "split", address, splits, *shares]) == 0
    rows = read_manifests(f"{splits}/{name}.jsonl" for name in ("train", "val", "test"))
    assert sorted(row.id for row in rows) == sorted(row.id for row in read_manifest(folder))
    for row in rows:
        if isinstance(row.image, ShardFile):
            assert row.image.shard.startswith(f"{address}/shard-")
            assert row.image.read()
    assert main(["data", "check", address]) == 0
    with pytest.raises(DataError, match=r"has no path from .*; import it into a folder there"):
        split_manifest(address, tmp_path / "splits", {"val": 0.2}, apart=())


def test_a_run_learns_and_is_measured_the_same_from_a_bucket(
    folder: str, tmp_path: Path, ranks: Callable[..., str]
) -> None:
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
        "training": {
            **{"max_steps": 6, "batch_size": 8, "warmup_steps": 2, "trackers": []},
            "validate_every": 3,
        },
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    traces, results = [], []
    for name, place in (("local", str(tmp_path / "shards")), ("remote", folder)):
        run = tmp_path / name
        named = [f"data.train=[{place}]", f"data.validation={place}", f"data.test={place}"]
        overrides = [f"run_dir={run}", "data.num_workers=1", *named]
        access = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        ranks(1, "-m", "trimodal.train", str(tmp_path / "run.yaml"), *overrides, **access)
        lines = (run / "metrics.jsonl").read_text().splitlines()
        traces.append([json.loads(line)["trace"] for line in lines])
        validated = [any(k.startswith("validation") for k in json.loads(line)) for line in lines]
        assert sum(validated) == 2
        written = str(run / "evaluated.json")
        assert main(["eval", str(run / "model"), "--data", place, "--json", written]) == 0
        results.append(json.loads(Path(written).read_text()))
        assert results[-1]["manifest"] == place
    assert main(["report", str(tmp_path / "remote")]) == 0
    results.append(json.loads((tmp_path / "remote" / "results.json").read_text()))
    assert results[2] == results[1]
    assert results[0].pop("manifest") != results[1].pop("manifest")
    assert len(traces[0]) == 6
    assert traces[0] == traces[1]
    assert results[0] == results[1]
