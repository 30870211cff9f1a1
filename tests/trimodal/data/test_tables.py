import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Image, Value
from pyarrow.parquet import ParquetFile, write_table

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
    with pytest.raises(DataError, match=r"t\.parquet:2: image '.*\.png' does not exist"):
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
        ({"text": ["a", None], "image": [None, "x\0"]}, {}, r"t\.parquet:2: image: .* null byte"),
        ({"image": ["/etc/passwd"]}, {}, r"t\.parquet:1: image: '/etc/passwd' leads out of /"),
        ({"image": ["../x"]}, {}, r"t\.parquet:1: image: '\.\./x' leads out of /"),
        ({"image": ["."]}, {}, r"t\.parquet:1: image '.*' is not a file"),
        ({"text": ["a"], "image": [b""]}, {}, r"t\.parquet:1: image has no bytes"),
        ({"text": [b"a"]}, {}, r"t\.parquet:1: text must be a string, got \"b'a'\""),
        ({"text": []}, {}, r"t\.parquet has no rows"),
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


def test_a_damaged_page_is_named_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    texts = {"text": [f"text {i}" for i in range(200)]}
    Dataset.from_dict(texts).to_parquet(path, batch_size=100)
    metadata = ParquetFile(path).metadata
    assert metadata.num_row_groups == 2
    column = metadata.row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    table = Table(str(path))
    with pytest.raises(DataError, match=r"^.*t\.parquet:101: cannot be read from this row on: .+$"):
        import_corpus(table, tmp_path / "shards")


@pytest.mark.parametrize("content", ["[]", "7", '{"_data_files": 7}', "{", "[" * 200_000])
def test_a_dataset_whose_state_is_none_is_named(tmp_path: Path, content: str) -> None:
    Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text(content)
    with pytest.raises(DataError, match=r"^.*saved is no dataset that can be read: .+$"):
        Table(str(tmp_path / "saved"))


def test_a_dataset_has_its_files_in_its_folder(tmp_path: Path) -> None:
    Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    Dataset.from_dict({"text": ["secret"]}).save_to_disk(tmp_path / "other")
    state = tmp_path / "saved" / "state.json"
    (file,) = json.loads(state.read_bytes())["_data_files"]
    named = {"_data_files": [{"filename": f"../other/{file['filename']}"}]}
    state.write_text(json.dumps(json.loads(state.read_bytes()) | named))
    with pytest.raises(DataError, match=r"saved/state\.json: '.*' leads out of .*/saved"):
        Table(str(tmp_path / "saved"))
    (tmp_path / "link.arrow").symlink_to(tmp_path / "other" / file["filename"])
    assert Table(str(tmp_path / "link.arrow")).count == 1, "that is what the user named"


def labelled(path: Path, *labels: int | None) -> Table:
    column = pa.array(labels, pa.int64())  # the library itself refuses what is out of range
    features = Features({"text": Value("string"), "label": ClassLabel(names=["cat", "dog"])})
    texts = pa.array(["x"] * len(labels))
    write_table(pa.table([texts, column], schema=features.arrow_schema), path)
    return Table(str(path))


def test_a_row_without_a_class_has_no_label(tmp_path: Path) -> None:
    import_corpus(labelled(tmp_path / "t.parquet", 1, -1, None, 0), tmp_path / "shards")
    labels = [row.label for row in read_manifest(tmp_path / "shards")]
    assert labels == ["dog", None, None, "cat"]


@pytest.mark.parametrize("label", [2, -2])
def test_a_class_that_is_none_is_named(tmp_path: Path, label: int) -> None:
    table = labelled(tmp_path / "t.parquet", 1, label)
    with pytest.raises(DataError, match=rf"t\.parquet:2: label {label} is none of the 2 classes"):
        import_corpus(table, tmp_path / "shards")


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
