import random
from pathlib import Path

import pytest

from trimodal import storage
from trimodal.data.shards import Cuts, import_manifest
from trimodal.data.verify import verify
from trimodal.errors import StorageError
from trimodal.testing import write_tiny_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    manifest = write_tiny_manifest(tmp_path / "corpus", rows=16)
    import_manifest(manifest, tmp_path / "shards", Cuts(rows=6))
    return tmp_path / "shards"


def test_what_is_as_it_was_has_no_problem(folder: Path) -> None:
    counted: list[int] = []
    assert list(verify(folder, counted.append)) == []
    assert counted == [6, 6, 4]


@pytest.mark.parametrize("seed", range(12))
def test_any_flipped_bit_is_found(folder: Path, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    path = rng.choice([p for p in sorted(folder.iterdir()) if p.name != "index.json"])
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    (problem,) = verify(folder)
    assert str(path) in problem


def test_the_medium_that_is_hit_is_named(folder: Path) -> None:
    path = folder / "shard-00001.tar"
    content = bytearray(path.read_bytes())
    start = content.index(b"\x89PNG")
    content[start + 20] ^= 1
    path.write_bytes(content)
    (problem,) = verify(folder)
    assert problem.startswith(f"{path}: bytes {start} to ")
    assert problem.endswith("are not what was imported: image of 'train-6'")


@pytest.mark.parametrize("name", ["shard-00002.tar", "index.jsonl"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert list(verify(folder)) == [f"{folder / name} cannot be read: No such file or directory"]


def test_a_medium_that_cannot_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "shard-00001.tar"
    path.write_bytes(path.read_bytes() + b"x")

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage.time, "sleep", lambda _: None)
    monkeypatch.setattr(storage.os, "pread", fail)
    problems = list(verify(folder))
    assert len(problems) > 1
    assert all(p.startswith(f"{path} cannot be read: Input/output error: ") for p in problems)


def test_without_a_summary_there_is_nothing_to_compare_with(folder: Path) -> None:
    (folder / "index.json").write_text("{}")
    with pytest.raises(StorageError, match=r"index\.json is damaged: 'shards'"):
        list(verify(folder))
