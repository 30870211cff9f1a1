import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from trimodal import progress
from trimodal.data import corpus, read_manifests
from trimodal.data.check import check_manifest
from trimodal.data.corpus import Item, build
from trimodal.data.scenes import Scenes
from trimodal.errors import StorageError

RECIPE = Scenes(seed=3, samples=40)
FILES = {"README.md", "build.json", "image", "prompts.json", "speech"}
MANIFESTS = {"train.jsonl", "val.jsonl", "test.jsonl"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "new" / "scenes"
    assert build(RECIPE, folder) == {"train": 40, "val": 4, "test": 4}
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_corpus_has_manifests_prompts_and_media(built: Path) -> None:
    assert names(built) == FILES | MANIFESTS
    rows = read_manifests(built / f"{split}.jsonl" for split in corpus.SPLITS)
    assert len(rows) == 48
    for split in corpus.SPLITS:
        assert check_manifest(built / f"{split}.jsonl") == []
    assert json.loads((built / "prompts.json").read_bytes()) == RECIPE.prompts()
    assert json.loads((built / "build.json").read_bytes()) == {
        "built_by": "trimodal data build scenes",
        "seed": 3,
        "samples": 40,
        "spoken": 1.0,
    }


def test_media_are_what_the_recipe_says(built: Path) -> None:
    for index, row in enumerate(read_manifests([built / "val.jsonl"])):
        item = RECIPE.item("val", index)
        assert isinstance(row.image, Path)
        assert isinstance(row.speech, Path)
        assert item.utterance is not None
        np.testing.assert_array_equal(np.asarray(Image.open(row.image)), item.pixels)
        samples, rate = soundfile.read(row.speech, dtype="int16")
        assert rate == 22_050
        np.testing.assert_array_equal(samples, corpus.engine().say(item.utterance))
        assert row.metadata["transcript"] == item.utterance.text == row.texts[str(row.speech_lang)]
        assert row.speaker == item.utterance.voice.name


def test_the_same_recipe_writes_the_same_bytes_with_any_number_of_workers(
    built: Path, tmp_path: Path
) -> None:
    build(RECIPE, tmp_path, workers=2)
    assert contents(tmp_path) == contents(built)


def test_another_seed_writes_other_bytes(built: Path, tmp_path: Path) -> None:
    build(Scenes(seed=4, samples=10), tmp_path)
    ours, theirs = contents(tmp_path), contents(built)
    media = [name for name in ours if name.startswith(corpus.MEDIA)]
    assert not any(ours[name] == theirs[name] for name in media)


@pytest.mark.parametrize("name", ["thesis.txt", "build.json"])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"mine": true}')
    with pytest.raises(StorageError, match=rf"^{tmp_path} is not empty and no former build; .*"):
        build(Scenes(samples=10), tmp_path)
    assert contents(tmp_path) == {name: b'{"mine": true}'}


def test_overwriting_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "mine.png").write_text("mine")
    build(Scenes(samples=10), tmp_path, overwrite=True)
    assert names(tmp_path) == FILES | MANIFESTS
    assert (tmp_path / "image" / "mine.png").read_text() == "mine"


def test_a_former_build_is_replaced_whole(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "former"
    shutil.copytree(built, folder)
    build(Scenes(samples=10), folder)
    fresh = tmp_path / "fresh"
    build(Scenes(samples=10), fresh)
    assert contents(folder) == contents(fresh)


@dataclass(frozen=True)
class Interrupted(Scenes):
    """Scenes whose 33rd row never comes."""

    def item(self, split: str, index: int) -> Item:
        if index == corpus.CHUNK:
            raise KeyboardInterrupt
        return super().item(split, index)


def test_an_interrupted_build_has_no_manifest_and_can_be_repeated(
    built: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "scenes"
    shutil.copytree(built, folder)
    with pytest.raises(KeyboardInterrupt):
        build(Interrupted(seed=3, samples=40), folder)
    assert names(folder) == {"build.json", "image", "speech", "prompts.json", "README.md"}
    # a caption and a question of each row
    assert len(list((folder / "speech").iterdir())) == 2 * corpus.CHUNK
    build(RECIPE, folder)
    assert contents(folder) == contents(built)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=rf"^{tmp_path}/file/out cannot be written: "):
        build(Scenes(samples=10), tmp_path / "file" / "out")


def test_it_says_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 600.0)
    build(Scenes(samples=10), tmp_path)
    assert capsys.readouterr().err.splitlines() == ["built 12 of 12 rows"]
