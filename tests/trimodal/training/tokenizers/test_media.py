import json
import shutil
from pathlib import Path

import pytest
import torch

from trimodal.data import read_manifest
from trimodal.errors import DataError
from trimodal.storage import Source
from trimodal.training.tokenizers.media import MediaFiles


def _files(manifest: Path, room: int = 0, seen: list[Source] | None = None) -> MediaFiles:
    def decode(path: Source) -> tuple[torch.Tensor]:
        if seen is not None:
            seen.append(path)
        return (torch.zeros(100),)

    return MediaFiles(read_manifest(manifest), "image", decode, room)


def test_a_file_counts_once_however_many_rows_name_it(manifest: Path) -> None:
    size = len(_files(manifest))
    lines = manifest.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    more = [row | {"id": f"again-{row['id']}"} for row in rows if "image" in row]
    more += [row | {"id": f"other-{row['id']}", "image": f"../data/{row['image']}"} for row in more]
    manifest.write_text("\n".join([*lines, *map(json.dumps, more)]))
    assert len(_files(manifest)) == size == sum("image" in row for row in rows)


def test_decoded_once_while_there_is_room(manifest: Path) -> None:
    seen: list[Source] = []
    files = _files(manifest, room=2 * 400, seen=seen)
    for _ in range(3):
        for index in range(4):
            assert len(files[index][0]) == 100
    assert len(seen) == 2 + 3 * 2


def test_order_is_one_permutation_after_another(manifest: Path) -> None:
    files = _files(manifest)
    size = len(files)
    taken = [i for step in range(2 * size) for i in files.indices(step, 3, seed=1)]
    for epoch in range(6):
        assert sorted(taken[epoch * size : (epoch + 1) * size]) == list(range(size))
    assert taken[:size] != taken[size : 2 * size]
    assert files.indices(5, 3, seed=1) == taken[15:18]
    assert [i for step in range(2 * size) for i in files.indices(step, 3, seed=2)] != taken


def test_a_file_that_cannot_be_decoded_is_named_by_its_row(manifest: Path) -> None:
    def decode(path: Source) -> tuple[torch.Tensor]:
        raise DataError("image is truncated or corrupt")

    files = MediaFiles(read_manifest(manifest), "image", decode)
    with pytest.raises(DataError, match=r"train\.jsonl:1: image is truncated or corrupt"):
        files[0]


def test_manifests_without_any_are_refused(manifest: Path) -> None:
    rows = [row for row in read_manifest(manifest) if row.image is None]
    shutil.rmtree(manifest.parent)
    with pytest.raises(DataError, match="no row of the manifests has image"):
        MediaFiles(rows, "image", lambda path: ())
