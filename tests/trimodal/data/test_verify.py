import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest

from trimodal import storage
from trimodal.data import read_manifest
from trimodal.data.shards import Cuts, import_manifest
from trimodal.data.verify import verify
from trimodal.errors import DataError, StorageError
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
    (folder / "index.json").unlink()
    with pytest.raises(DataError, match=r"index\.json cannot be read: No such file"):
        list(verify(folder))


def change(folder: Path, **keys: object) -> None:
    """Keys of the summary."""
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | keys))


def give_index(folder: Path, content: bytes) -> None:
    """Another index, whose hash fits."""
    (folder / "index.jsonl").write_bytes(content)
    change(folder, index=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("{}", "rows: missing"),
        ("[]", "the configuration: expected keys"),
        ('{"shards": ' + "[" * 200_000, "maximum recursion depth|nested"),
    ],
    ids=["empty", "list", "nested"],
)
def test_a_summary_that_is_none_is_damaged(folder: Path, content: str, cause: str) -> None:
    (folder / "index.json").write_text(content)
    with pytest.raises(StorageError, match=rf"index\.json is damaged: ({cause})"):
        list(verify(folder))
    with pytest.raises(DataError, match=r"index\.json is damaged|is not what was imported"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("keys", "cause"),
    [
        ({"rows": "x"}, "rows: expected int, got 'x'"),
        ({"duplicates": -1}, "duplicates: must be at least 0, got -1"),
        ({"shards": [{"name": 7}]}, r"shards\[0\]\.rows: missing"),
    ],
)
def test_a_value_of_another_type_is_damage(
    folder: Path, keys: dict[str, object], cause: str
) -> None:
    change(folder, **keys)
    with pytest.raises(StorageError, match=rf"index\.json is damaged: {cause}"):
        list(verify(folder))


def test_an_index_that_is_none_is_told_though_its_hash_fits(folder: Path) -> None:
    index = folder / "index.jsonl"
    rows = index.read_bytes().splitlines()
    far = json.loads(rows[3])
    (key,) = [key for key in ("image", "speech") if key in far][:1]
    far[key]["size"] = 10**30
    bad = [b"no JSON", b"[]", b"[" * 200_000, json.dumps(far).encode()]
    give_index(folder, b"\n".join([*bad, *rows[4:]]))
    problems = list(verify(folder))
    assert [problem.split(": ")[:2] for problem in problems] == [
        [f"{index}:1", "not JSON"],
        [f"{index}:2", "expected a JSON object, got []"],
        [f"{index}:3", "not JSON that can be read"],
        [f"{index}:4", key],
    ]
    with (folder / "shard-00000.tar").open("ab") as file:
        file.write(b"x")
    assert len(list(verify(folder))) == 5, "media of bad rows are not read"


def test_rows_that_are_not_counted_are_told(folder: Path) -> None:
    give_index(folder, b"".join((folder / "index.jsonl").read_bytes().splitlines(True)[:-1]))
    (problem,) = verify(folder)
    assert problem.endswith(
        "index.jsonl has 15 rows, and index.json counts 16, 16 of them in shards"
    )


def test_a_tar_that_is_no_shard_is_named(folder: Path) -> None:
    shutil.copy(folder / "shard-00000.tar", folder / "shard-00003.tar")
    (folder / "notes.txt").write_text("mine")
    assert list(verify(folder)) == [f"{folder / 'shard-00003.tar'} is no shard of the import"]
