import json
from pathlib import Path
from typing import Any

import pytest

from trimodal.data import read_manifest
from trimodal.data.shards import import_manifest
from trimodal.data.splitting import split_manifest
from trimodal.errors import ConfigError, StorageError
from trimodal.storage import ShardFile

SHARES = {"val": 0.1, "test": 0.2}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """200 utterances of 40 speakers; some rows share a picture with one of another speaker."""
    rows: list[dict[str, Any]] = []
    (tmp_path / "media").mkdir()
    for i in range(200):
        (tmp_path / "media" / f"{i}.wav").write_bytes(bytes([i]))
        rows.append({"id": str(i), "speech": f"media/{i}.wav", "speaker": f"s{i % 40}"})
    for i in range(0, 12, 2):
        (tmp_path / "media" / f"{i}.png").write_bytes(bytes([i]))
        for row in (rows[i], rows[i + 1]):
            row["image"] = f"media/{i}.png"
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def values(path: Path, key: str) -> set[object]:
    return {x for row in read_manifest(path) if (x := getattr(row, key)) is not None}


def test_no_speaker_and_no_file_is_in_two(tmp_path: Path, manifest: Path) -> None:
    sizes = split_manifest(manifest, tmp_path / "out", SHARES)
    assert sum(sizes.values()) == 200
    assert 10 <= sizes["val"] <= 20
    assert 30 <= sizes["test"] <= 40
    for key in ("speaker", "image", "id"):
        each = [values(tmp_path / "out" / f"{name}.jsonl", key) for name in sizes]
        assert sum(len(found) for found in each) == len(set().union(*each))


def test_rows_are_as_they_were_and_in_their_order(tmp_path: Path, manifest: Path) -> None:
    split_manifest(manifest, tmp_path / "out", SHARES)
    before = {row.id: row for row in read_manifest(manifest)}
    for name in ("train", "val", "test"):
        rows = read_manifest(tmp_path / "out" / f"{name}.jsonl")
        assert [int(row.id) for row in rows] == sorted(int(row.id) for row in rows)
        for row in rows:
            assert isinstance(row.speech, Path)
            expected = before[row.id].speech
            assert isinstance(expected, Path)
            assert row.speech.resolve() == expected.resolve()


def test_it_depends_on_the_seed_alone(tmp_path: Path, manifest: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        split_manifest(manifest, tmp_path / name, SHARES, seed=seed)
    a, b, c = (values(tmp_path / name / "test.jsonl", "id") for name in "abc")
    assert a == b != c


def test_other_keys_can_be_kept_apart(tmp_path: Path, manifest: Path) -> None:
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for i, row in enumerate(rows):
        row["group"] = f"g{i // 2}"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    split_manifest(manifest, tmp_path / "out", SHARES, apart=("group",))
    each = [values(tmp_path / "out" / f"{name}.jsonl", "group") for name in ("train", "test")]
    assert each[0].isdisjoint(each[1])
    speakers = [values(tmp_path / "out" / f"{name}.jsonl", "speaker") for name in ("train", "test")]
    assert not speakers[0].isdisjoint(speakers[1])


def test_shards_can_be_split(tmp_path: Path, manifest: Path) -> None:
    import_manifest(manifest, tmp_path / "shards")
    split_manifest(tmp_path / "shards", tmp_path / "out", SHARES)
    for row in read_manifest(tmp_path / "out" / "test.jsonl"):
        assert isinstance(row.speech, ShardFile)
        assert row.speech.read() == bytes([int(row.id)])


def test_what_cannot_be_is_refused(tmp_path: Path, manifest: Path) -> None:
    for shares, apart, said in (
        ({"val": 0.0}, (), r"the share of val must be in \(0, 1\), got 0"),
        ({"val": 0.5, "test": 0.5}, (), "shares of 1 leave nothing to train on"),
        ({"val": 0.1}, ("colour",), "'colour' is not one of speaker, group, label"),
    ):
        with pytest.raises(ConfigError, match=said):
            split_manifest(manifest, tmp_path / "out", shares, apart)
    one = [json.loads(line) | {"speaker": "one"} for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in one))
    with pytest.raises(ConfigError, match="no rows are left for val: those that share speaker"):
        split_manifest(manifest, tmp_path / "out", SHARES)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(tmp_path: Path, manifest: Path) -> None:
    (tmp_path / "val.jsonl").write_text("mine")
    with pytest.raises(StorageError, match=r"val\.jsonl is there already"):
        split_manifest(manifest, tmp_path, SHARES)
    assert not (tmp_path / "train.jsonl").exists()
