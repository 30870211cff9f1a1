import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Image, Value

from trimodal.data import Row, read_manifest
from trimodal.data.shards import Cuts, import_corpus, import_manifest
from trimodal.data.tables import Table, is_table
from trimodal.errors import ConfigError, DataError
from trimodal.storage import ShardFile
from trimodal.testing import write_tiny_manifest
from trimodal.workers import Processes

CUTS = Cuts(rows=7)
COLUMNS = {"image": "picture", "text": "caption"}
ROWS = 24


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_tiny_manifest(tmp_path / "corpus", rows=ROWS)


def content(source: object) -> bytes | None:
    if isinstance(source, ShardFile):
        return source.read()
    return source.read_bytes() if isinstance(source, Path) else None


def dataset_of(manifest: Path) -> Dataset:
    """The rows of a manifest as the library keeps them, with their files as they are."""
    rows = read_manifest(manifest)
    labels = sorted({str(row.label) for row in rows})

    def column(sources: list[Any]) -> list[Any]:
        return [None if s is None else {"bytes": s.read_bytes(), "path": s.name} for s in sources]

    return Dataset.from_dict(
        {
            "picture": column([row.image for row in rows]),
            "audio": column([row.speech for row in rows]),
            "caption": [next(iter(row.texts.values()), None) for row in rows],
            "label": [labels.index(str(row.label)) for row in rows],
            "score": [0.5 * i if i else float("nan") for i in range(ROWS)],
            "stamp": [bytes([i]) for i in range(ROWS)],
        },
        features=Features(
            {
                "picture": Image(decode=True),
                "audio": {"bytes": Value("binary"), "path": Value("string")},
                "caption": Value("string"),
                "label": ClassLabel(names=labels),
                "score": Value("float64"),
                "stamp": Value("binary"),
            }
        ),
    ).cast_column("audio", Audio())  # to encode it itself, the library needs FFmpeg


@pytest.fixture(params=["saved", "parquet", "folder", "arrow"])
def source(request: pytest.FixtureRequest, tmp_path: Path, manifest: Path) -> Path:
    """The dataset in each form that the library writes."""
    dataset, folder = dataset_of(manifest), tmp_path / "train"
    if request.param in ("saved", "arrow"):
        dataset.save_to_disk(folder)
        return folder if request.param == "saved" else next(folder.glob("*.arrow"))
    folder.mkdir()
    if request.param == "parquet":
        dataset.to_parquet(folder / "all.parquet", batch_size=5)
        return folder / "all.parquet"
    for i in range(2):
        dataset.shard(2, i, contiguous=True).to_parquet(folder / f"part-{i}.parquet")
    return folder


def test_shards_hold_the_rows_and_the_very_bytes(
    source: Path, tmp_path: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("nothing has to be decoded")

    monkeypatch.setattr(datasets.Image, "decode_example", decode)
    monkeypatch.setattr(datasets.Audio, "decode_example", decode)
    assert is_table(source)
    table = Table(str(source), COLUMNS)
    done = import_corpus(table, tmp_path / "shards", CUTS)
    assert [shard.rows for shard in done.shards] == [7, 7, 7, 3]
    assert table.left_out == ["stamp"]
    before, after = read_manifest(manifest), read_manifest(tmp_path / "shards")
    assert [row.id for row in after] == [f"{source.stem}-{i}" for i in range(ROWS)]
    for old, new in zip(before, after, strict=True):
        assert content(new.image) == content(old.image)
        assert content(new.speech) == content(old.speech)
        assert list(new.texts.values()) == list(old.texts.values())[:1]
        assert new.label == str(old.label)
    assert [row.metadata["score"] for row in after[:3]] == [None, 0.5, 1.0]


def test_the_bytes_do_not_depend_on_the_form_or_on_the_workers(
    tmp_path: Path, manifest: Path
) -> None:
    dataset = dataset_of(manifest)
    dataset.save_to_disk(tmp_path / "a" / "train")
    (tmp_path / "b").mkdir()
    dataset.to_parquet(tmp_path / "b" / "train.parquet")
    folders = [tmp_path / name for name in ("saved", "parquet")]
    saved = Table(str(tmp_path / "a" / "train"), COLUMNS)
    import_corpus(saved, folders[0], CUTS)
    table = Table(str(tmp_path / "b" / "train.parquet"), COLUMNS)
    import_corpus(table, folders[1], CUTS, Processes(2))
    names = {path.name for path in folders[0].iterdir()} - {"index.json"}
    assert len(names) == 5
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    other = Table(saved.path, {**COLUMNS, "speaker": "label"})
    assert len({saved.digest, table.digest, other.digest}) == 3


def test_files_that_a_dataset_names_are_read(tmp_path: Path, manifest: Path) -> None:
    rows = [row for row in read_manifest(manifest) if row.image is not None]
    (tmp_path / "images").mkdir()
    for row in rows:
        (tmp_path / "images" / f"{row.id}.png").write_bytes(content(row.image) or b"")
    found = {"image": [f"images/{row.id}.png" for row in rows], "id": list(range(len(rows)))}
    Dataset.from_dict(found).to_parquet(tmp_path / "t.parquet")
    import_corpus(Table(str(tmp_path / "t.parquet")), tmp_path / "shards")
    after = read_manifest(tmp_path / "shards")
    assert [content(row.image) for row in after] == [content(row.image) for row in rows]
    assert [row.id for row in after] == [str(i) for i in range(len(rows))]
    (tmp_path / "images" / f"{rows[1].id}.png").unlink()
    with pytest.raises(DataError, match=r"t\.parquet:2: .*\.png No such file"):
        import_corpus(Table(str(tmp_path / "t.parquet")), tmp_path / "again")


def test_of_several_texts_the_first_is_the_row_s_own(tmp_path: Path) -> None:
    Dataset.from_dict({"text": [["a cat", "one cat"], ["一只狗"]]}).to_parquet(
        tmp_path / "t.parquet"
    )
    import_corpus(Table(str(tmp_path / "t.parquet")), tmp_path / "shards")
    first, second = read_manifest(tmp_path / "shards")
    assert (first.texts, first.references) == ({"en": "a cat"}, {"en": ("one cat",)})
    assert (second.texts, second.references) == ({"zh": "一只狗"}, {})


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        ({"text": ["a", ""]}, {}, r"t\.parquet:2: text is empty"),
        ({"text": ["a", None]}, {}, r"t\.parquet:2: has neither image nor text nor speech"),
        ({"text": ["a", "b"], "id": ["x", "x"]}, {}, r"t\.parquet:2: id 'x' is already used at"),
        ({"text": ["a"]}, {"image": "img"}, r"no column 'img' for image: text"),
        ({"text": ["a"]}, {"picture": "text"}, r"'picture' is no key of a manifest: answer, "),
        ({"text": ["a"], "audio": [[0.5]]}, {}, r"column 'audio' holds List.*, no encoded speech"),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, columns: dict[str, list[Any]], given: dict[str, str], message: str
) -> None:
    Dataset.from_dict(columns).to_parquet(tmp_path / "t.parquet")
    with pytest.raises((ConfigError, DataError), match=message):
        import_corpus(Table(str(tmp_path / "t.parquet"), given), tmp_path / "shards")


def test_a_dictionary_of_splits_asks_for_one(tmp_path: Path) -> None:
    one = Dataset.from_dict({"text": ["a"]})
    DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "all")
    assert is_table(tmp_path / "all")
    with pytest.raises(ConfigError, match="holds the splits test, train; name one of its folders"):
        Table(str(tmp_path / "all"))


def test_files_that_are_no_datasets_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"x\.parquet is no dataset that can be read"):
        Table(str(tmp_path / "x.parquet"))


def test_manifests_and_shards_are_no_tables(tmp_path: Path, manifest: Path) -> None:
    import_manifest(manifest, tmp_path / "shards")
    for path in (manifest, manifest.parent, tmp_path / "shards", tmp_path / "nothing"):
        assert not is_table(path)
    assert not is_table("s3://bucket/x.parquet")


def test_a_row_keeps_what_json_holds(tmp_path: Path) -> None:
    Dataset.from_dict({"text": ["a"], "box": [{"x": [1.0, float("inf")]}]}).to_parquet(
        tmp_path / "t.parquet"
    )
    import_corpus(Table(str(tmp_path / "t.parquet")), tmp_path / "shards")
    row: Row = read_manifest(tmp_path / "shards")[0]
    assert json.dumps(row.metadata) == '{"box": {"x": [1.0, null]}}'
