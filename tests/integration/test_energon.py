"""Shards as Megatron-Energon prepares and reads them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from megatron.energon import (
    Cooker,
    DefaultTaskEncoder,
    WorkerConfig,
    get_loader,
    get_train_dataset,
    stateless,
)

from trimodal.data import Row, read_manifest
from trimodal.data.shards import Cuts, import_manifest
from trimodal.storage import ShardFile
from trimodal.testing import write_tiny_manifest

ENDINGS = {"image": "png", "speech": "wav", "question_speech": "question.wav"}


@stateless
def cook(sample: dict[str, Any]) -> dict[str, Any]:
    """Nothing is decoded and nothing is left out."""
    return sample


class Raw(DefaultTaskEncoder):
    decoder = None
    cookers = [Cooker(cast(Any, cook))]  # noqa: RUF012 - so Energon wants it

    def batch(self, samples: list[Any]) -> list[Any]:
        return samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, host: Callable[..., list[int]]) -> Path:
    """An import of 24 rows in four shards, with what Energon adds to it."""
    place = tmp_path_factory.mktemp("energon")
    manifest = write_tiny_manifest(place / "corpus", rows=24)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows[0] |= {"question": "which?", "answer": "red", "question_speech": rows[0]["speech"]}
    manifest.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    import_manifest(manifest, place / "shards", Cuts(rows=7))
    program = str(Path(sys.executable).with_name("energon"))
    arguments = ["--non-interactive", "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset"]
    shards = str(place / "shards")
    prepared = host([program, "prepare", *arguments, "--num-workers", "1", shards], place)
    assert prepared == [0], (place / "stderr").read_text()[-3000:]
    return place / "shards"


def read(folder: Path) -> list[dict[str, Any]]:
    config = WorkerConfig(rank=0, world_size=1, num_workers=0)
    dataset = get_train_dataset(
        folder,
        worker_config=config,
        batch_size=1,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
        repeat=False,
        task_encoder=Raw(),
    )
    return [sample for batch in get_loader(dataset) for sample in batch]


def media(row: Row) -> dict[str, bytes]:
    sources = {key: getattr(row, key) for key in ENDINGS}
    return {k: source.read() for k, source in sources.items() if isinstance(source, ShardFile)}


def test_it_reads_the_samples_that_were_imported(folder: Path) -> None:
    rows = {row.id: row for row in read_manifest(folder)}
    found = {json.loads(sample["json"])["id"]: sample for sample in read(folder)}
    assert found.keys() == rows.keys()
    for name, sample in found.items():
        for key, content in media(rows[name]).items():
            assert sample[ENDINGS[key]] == content
