import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from trimodal import cli, progress
from trimodal.cli import main
from trimodal.cli.corpus import LAYOUTS
from trimodal.data import layouts, read_manifest
from trimodal.testing import write_tiny_manifest


@pytest.fixture(autouse=True)
def only_this_command(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("data", "trimodal.cli.data:COMMAND", "trimodal.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry])


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_tiny_manifest(tmp_path / "corpus", rows=24)


@pytest.mark.parametrize("action", ["manifest", "split", "stats", "import", "verify"])
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], action: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", action, "--help"])
    assert ended.value.code == 0
    assert f"example: trimodal data {action} " in capsys.readouterr().out


def test_every_layout_can_be_named() -> None:
    assert sorted(LAYOUTS) == sorted(layouts.LAYOUTS)


def test_from_a_folder_of_pictures_to_shards_that_are_sound(
    tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for row in read_manifest(manifest):
        if isinstance(row.image, Path):
            (tmp_path / "pets" / str(row.label)).mkdir(parents=True, exist_ok=True)
            row.image.rename(tmp_path / "pets" / str(row.label) / row.image.name)
    (tmp_path / "pets" / "red").mkdir(exist_ok=True)
    (tmp_path / "pets" / "red" / "notes.txt").write_text("mine")
    listed, out = tmp_path / "all.jsonl", tmp_path / "split"
    assert main(["data", "manifest", "imagefolder", str(tmp_path / "pets"), str(listed)]) == 0
    count = len(read_manifest(listed))
    assert main(["data", "split", str(listed), str(out), "--val", "0.2", "--test", "0"]) == 0
    train = read_manifest(out / "train.jsonl")
    assert len(train) + len(read_manifest(out / "val.jsonl")) == count
    arguments = ["--rows", "4", "--workers", "1"]
    assert main(["data", "import", str(out / "train.jsonl"), str(tmp_path / "s"), *arguments]) == 0
    assert main(["data", "verify", str(tmp_path / "s")]) == 0
    told = capsys.readouterr().out
    assert f"{listed}: {count} rows\nleft out: 1 files that are not .png, .jpg" in told
    assert (
        f"{tmp_path / 's'}: 0 problems, {len(train)} rows in {-(-len(train) // 4)} shards" in told
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_import_says_how_far_it_is(
    tmp_path: Path,
    manifest: Path,
    workers: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Off a terminal a line now and then, here after each shard; of what was there before too."""
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0.0)
    arguments = ["data", "import", str(manifest), str(tmp_path / "s"), "--workers", workers]
    assert main([*arguments, "--rows", "9"]) == 0
    told = [f"imported {done} of 24 rows" for done in (9, 18, 24)]
    assert capsys.readouterr().err.splitlines() == told
    assert main([*arguments, "--rows", "9"]) == 0
    assert capsys.readouterr().err.splitlines() == told[-1:]


def test_a_terminal_gets_a_bar_with_a_total(
    tmp_path: Path,
    manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    arguments = ["--rows", "9", "--workers", "1"]
    assert main(["data", "import", str(manifest), str(tmp_path / "s"), *arguments]) == 0
    told = capsys.readouterr().err
    assert "imported:   0%" in told
    assert "| 0/24 [" in told
    assert "rows\n" not in told


def test_damage_is_listed_and_is_the_status(
    tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shards"
    assert main(["data", "import", str(manifest), str(out), "--rows", "9", "--workers", "1"]) == 0
    shard = out / "shard-00001.tar"
    content = bytearray(shard.read_bytes())
    content[content.index(b"\x89PNG") + 30] ^= 1
    shard.write_bytes(content)
    assert main(["data", "verify", str(out)]) == 65
    told = capsys.readouterr().out
    assert f"{shard}: bytes " in told
    assert f"{out}: 1 problem, 24 rows in 3 shards" in told


def test_rows_of_one_content_are_told(
    tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines, json.dumps(json.loads(lines[0]) | {"id": "copy"})]))
    assert main(["data", "import", str(manifest), str(tmp_path / "s"), "--workers", "1"]) == 0
    assert "1 rows have the media and texts of one before them, see" in capsys.readouterr().out


def test_statistics_are_said_and_written(
    tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, numbers = tmp_path / "stats.html", tmp_path / "stats.json"
    arguments = ["--html", str(page), "--json", str(numbers)]
    assert main(["data", "stats", str(manifest), *arguments]) == 0
    assert "rows: 24" in capsys.readouterr().out
    assert json.loads(numbers.read_text())["rows"] == 24
    assert "<svg" in page.read_text(encoding="utf-8")


def test_numbers_that_cannot_be_are_refused(
    tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "import", str(manifest), str(tmp_path / "s"), "--rows", "0"])
    assert ended.value.code == 2
    assert "--rows: 0 is not at least 1" in capsys.readouterr().err
    arguments = [str(manifest), str(tmp_path / "s"), "--columns", "image=img"]
    assert main(["data", "import", *arguments]) == 64
    assert "m.jsonl is no dataset" in capsys.readouterr().err.replace(manifest.name, "m.jsonl")


def test_a_dataset_becomes_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datasets import Dataset

    columns = {"sentence": ["one", "two"], "stamp": [b"a", b"b"]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "t.parquet")
    arguments = ["data", "import", str(tmp_path / "t.parquet"), str(tmp_path / "s")]
    assert main([*arguments, "--columns", "text=sentence", "--workers", "1"]) == 0
    told = capsys.readouterr()
    assert "not imported, for JSON cannot hold them: stamp" in told.out
    assert told.err.splitlines()[-1] == "imported 2 of 2 rows"
    assert [row.texts["en"] for row in read_manifest(tmp_path / "s")] == ["one", "two"]
    with pytest.raises(SystemExit):
        main([*arguments, "--columns", "text"])
    assert "'text' is not KEY=COLUMN" in capsys.readouterr().err
