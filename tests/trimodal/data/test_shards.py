import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trimodal.data import read_manifest, shards
from trimodal.data.row import Row
from trimodal.data.shard import ShardTask, write_shard
from trimodal.data.shards import Cuts, import_manifest, read_summary
from trimodal.errors import ConfigError, DataError, PathError, StorageError
from trimodal.storage import ShardFile
from trimodal.testing import write_tiny_manifest
from trimodal.workers import Processes

CUTS = Cuts(rows=7)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = write_tiny_manifest(tmp_path / "corpus", rows=24)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0] |= {"question": "which?", "answer": "red", "question_speech": rows[0]["speech"]}
    rows[3] |= {"seen": {"by": [1, None]}}
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def media(row: Row) -> dict[str, bytes]:
    sources = {"image": row.image, "speech": row.speech, "asked": row.question_speech}
    return {
        name: source.read() if isinstance(source, ShardFile) else source.read_bytes()
        for name, source in sources.items()
        if source is not None
    }


def told(row: Row) -> dict[str, Any]:
    names = ("id", "texts", "label", "group", "speaker", "question", "answer", "metadata")
    return {name: getattr(row, name) for name in names}


def test_the_folder_is_a_manifest_of_the_same_rows(tmp_path: Path, manifest: Path) -> None:
    done = import_manifest(manifest, tmp_path / "shards", CUTS)
    assert [shard.rows for shard in done.shards] == [7, 7, 7, 3]
    before, after = read_manifest(manifest), read_manifest(tmp_path / "shards")
    assert [told(row) for row in after] == [told(row) for row in before]
    assert [media(row) for row in after] == [media(row) for row in before]
    assert after[9].where == f"{tmp_path / 'shards' / 'index.jsonl'}:10"


def test_what_is_counted_is_there(tmp_path: Path, manifest: Path) -> None:
    done = import_manifest(manifest, tmp_path / "shards", CUTS)
    assert read_summary(tmp_path / "shards") == done
    found = contents(tmp_path / "shards")
    assert found.keys() == {"index.json", "index.jsonl", *(shard.name for shard in done.shards)}
    assert done.rows == len(found["index.jsonl"].splitlines()) == 24
    assert done.index == hashlib.sha256(found["index.jsonl"]).hexdigest()
    assert done.source == hashlib.sha256(manifest.read_bytes()).hexdigest()
    for shard in done.shards:
        assert shard.size == len(found[shard.name])
        assert shard.sha256 == hashlib.sha256(found[shard.name]).hexdigest()


def test_the_bytes_depend_on_the_manifest_alone(tmp_path: Path, manifest: Path) -> None:
    import_manifest(manifest, tmp_path / "one", CUTS)
    import_manifest(manifest, tmp_path / "two", CUTS, workers=Processes(2))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_kill_before_the_plan_is_written_blocks_no_folder(tmp_path: Path, manifest: Path) -> None:
    (tmp_path / "shards" / ".import").mkdir(parents=True)
    (tmp_path / "shards" / ".import" / ".plan.json.half").write_bytes(b"{")
    import_manifest(manifest, tmp_path / "shards", CUTS)
    import_manifest(manifest, tmp_path / "whole", CUTS)
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")


@pytest.mark.parametrize("harm", ["gone", "short", "part"])
def test_a_shard_that_is_not_there_as_its_part_says_is_written_again(
    tmp_path: Path, manifest: Path, harm: str
) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    import_manifest(manifest, tmp_path / "whole", CUTS)
    with pytest.raises(KeyboardInterrupt):
        import_manifest(manifest, tmp_path / "cut", CUTS, progress=stop)
    shard = tmp_path / "cut" / "shard-00000.tar"
    part = tmp_path / "cut" / ".import" / "shard-00000.tar.jsonl"
    if harm == "gone":
        shard.unlink()
    else:
        path = shard if harm == "short" else part
        path.write_bytes(path.read_bytes()[:-1] if harm == "short" else b"\0" * 100)
    import_manifest(manifest, tmp_path / "cut", CUTS)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_an_interrupted_import_goes_on(
    tmp_path: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_manifest(manifest, tmp_path / "whole", CUTS)
    counted: list[int] = []

    def stop(rows: int) -> None:
        counted.append(rows)
        if len(counted) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_manifest(manifest, tmp_path / "cut", CUTS, progress=stop)
    with pytest.raises(DataError, match=r"index\.json cannot be read: No such file"):
        read_summary(tmp_path / "cut")
    (tmp_path / "cut" / ".import" / "shard-00002.tar").write_bytes(b"half")
    written: list[str] = []

    def noted(task: ShardTask) -> int:
        written.append(task.name)
        return write_shard(task)

    monkeypatch.setattr(shards, "write_shard", noted)
    counted = []
    import_manifest(manifest, tmp_path / "cut", CUTS, progress=counted.append)
    assert counted == [7, 7, 7, 3]
    assert written == ["shard-00002.tar", "shard-00003.tar"]
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    import_manifest(manifest, tmp_path / "cut", CUTS, progress=counted.append)
    assert counted[4:] == [24], "what is done is not done again"


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, manifest: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").write_text("mine")
    with pytest.raises(StorageError, match="other is not empty and no import; name another"):
        import_manifest(manifest, tmp_path / "other")
    import_manifest(manifest, tmp_path / "shards")
    second = write_tiny_manifest(tmp_path / "second", rows=4)
    with pytest.raises(StorageError, match="holds the import of another corpus or of other"):
        import_manifest(second, tmp_path / "shards")
    assert (tmp_path / "other" / "notes").read_text() == "mine"


def test_other_sizes_do_not_go_on_with_an_import(tmp_path: Path, manifest: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_manifest(manifest, tmp_path / "shards", CUTS, progress=stop)
    with pytest.raises(StorageError, match="unfinished import of another manifest, or with other"):
        import_manifest(manifest, tmp_path / "shards", Cuts(rows=8))


@pytest.mark.parametrize("cuts", [Cuts(rows=8), Cuts(rows=7, megabytes=1)])
def test_other_sizes_are_not_taken_for_those_of_a_finished_import(
    tmp_path: Path, manifest: Path, cuts: Cuts
) -> None:
    done = import_manifest(manifest, tmp_path / "shards", CUTS)
    before = contents(tmp_path / "shards")
    with pytest.raises(PathError, match="with shards of at most 7 rows and 512 megabytes; name"):
        import_manifest(manifest, tmp_path / "shards", cuts)
    assert contents(tmp_path / "shards") == before
    summary = tmp_path / "shards" / "index.json"
    tree = json.loads(summary.read_bytes())
    del tree["cuts"]  # as older versions wrote it
    summary.write_text(json.dumps(tree))
    assert import_manifest(manifest, tmp_path / "shards", cuts) == replace(done, cuts=None)


def test_two_at_once_do_not_import_into_one_folder(tmp_path: Path, manifest: Path) -> None:
    def again(_: int) -> None:
        with pytest.raises(ConfigError, match="shards is in use by another process"):
            import_manifest(manifest, tmp_path / "shards", CUTS)

    import_manifest(manifest, tmp_path / "shards", CUTS, progress=again)
    import_manifest(manifest, tmp_path / "whole", CUTS)
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")


def test_a_shard_ends_where_its_megabytes_do(tmp_path: Path, manifest: Path) -> None:
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    with_speech = [row for row in rows if "speech" in row]
    for row in with_speech:
        path = manifest.parent / row["speech"]
        path.write_bytes(path.read_bytes() + bytes(400_000))
    done = import_manifest(manifest, tmp_path / "shards", Cuts(megabytes=1))
    assert sum(shard.rows for shard in done.shards) == 24
    assert max(shard.size for shard in done.shards) < 2**20 + 200_000
    assert len(done.shards) >= len(with_speech) // 2


def test_rows_of_one_content_are_reported(tmp_path: Path, manifest: Path) -> None:
    lines = manifest.read_text().splitlines()
    row = json.loads(lines[2])
    text = row.pop("text")
    others = {
        "copy": {"text": text},
        "elsewhere": {"text": text, "url": "https://example.org/2", "label": "another"},
        "null": {"text": text, "question": None},
        "named": {f"text_{row.get('lang', 'en')}": text},
        "asked": {"text": text, "question": "which?", "answer": "red"},
        "said": {"text": f"{text}!"},
    }
    copies = [json.dumps(row | own | {"id": name}) for name, own in others.items()]
    manifest.write_text("\n".join([*lines, *copies]))
    done = import_manifest(manifest, tmp_path / "shards", CUTS)
    told = (tmp_path / "shards" / "duplicates.jsonl").read_text().splitlines()
    assert done.duplicates == len(told) == 4
    assert [json.loads(line) for line in told] == [
        {"id": name, "same_as": "train-2"} for name in ("copy", "elsewhere", "null", "named")
    ]


def test_an_import_can_be_imported(tmp_path: Path, manifest: Path) -> None:
    import_manifest(manifest, tmp_path / "one", CUTS)
    import_manifest(tmp_path / "one", tmp_path / "two", Cuts(rows=5))
    before, after = read_manifest(tmp_path / "one"), read_manifest(tmp_path / "two")
    assert [media(row) for row in after] == [media(row) for row in before]
    assert [row.image for row in after] == [row.image for row in before], "by what they hold"


def test_webdataset_reads_the_same_samples(tmp_path: Path, manifest: Path) -> None:
    from webdataset.compat import WebDataset

    done = import_manifest(manifest, tmp_path / "shards", CUTS)
    urls = [str(tmp_path / "shards" / shard.name) for shard in done.shards]
    found = list(WebDataset(urls, shardshuffle=False, empty_check=False))
    rows = read_manifest(manifest)
    assert [sample["__key__"] for sample in found] == [f"{i:09d}" for i in range(24)]
    endings = {"image": "png", "speech": "wav", "asked": "question.wav"}
    for sample, row in zip(found, rows, strict=True):
        assert json.loads(sample["json"])["id"] == row.id
        for name, content in media(row).items():
            assert sample[endings[name]] == content
