import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimodal.data import read_manifest
from trimodal.data.check import check_manifest
from trimodal.data.layouts import LAYOUTS, Left, write_manifest
from trimodal.errors import DataError, StorageError
from trimodal.testing import write_tiny_manifest


@pytest.fixture
def media(tmp_path: Path) -> dict[str, Path]:
    """A picture and a recording that can be decoded."""
    row = read_manifest(write_tiny_manifest(tmp_path / "media", rows=1))[0]
    assert isinstance(row.image, Path)
    assert isinstance(row.speech, Path)
    return {"image": row.image, "speech": row.speech}


def put(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, place)


def give(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def read(layout: str, source: Path, out: Path, **left: int) -> list[dict[str, Any]]:
    """The rows of the manifest that is written, all of whose media can be decoded.

    Args:
        layout: by its name.
        source: of the corpus.
        out: the manifest.
        left: how much of what is left out, by its first word.
    """
    counted = Left()
    count = write_manifest(LAYOUTS[layout](source, counted), out)
    assert {what.split()[0]: n for what, n in counted.items() if n} == left
    assert check_manifest(out) == []
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == count
    return rows


def test_ljspeech(tmp_path: Path, media: dict[str, Path]) -> None:
    folder = tmp_path / "LJSpeech-1.1"
    for name in ("LJ001-0001", "LJ001-0002", "LJ001-0003"):
        put(media["speech"], folder / "wavs" / f"{name}.wav")
    (folder / "metadata.csv").write_text(
        "LJ001-0001|in 1455|in fourteen fifty-five\nLJ001-0002|being\n"
    )
    rows = read("ljspeech", folder, tmp_path / "out" / "lj.jsonl", recordings=1)
    assert [row["text"] for row in rows] == ["in fourteen fifty-five", "being"]
    assert rows[0]["speech"] == "../LJSpeech-1.1/wavs/LJ001-0001.wav"
    assert {row["speaker"] for row in rows} == {"LJ"}


def test_librispeech(tmp_path: Path, media: dict[str, Path]) -> None:
    folder = tmp_path / "dev-clean"
    for speaker, chapter in (("84", "121"), ("174", "50")):
        place = folder / speaker / chapter
        put(media["speech"], place / f"{speaker}-{chapter}-0000.flac")
        (place / f"{speaker}-{chapter}.trans.txt").write_text(
            f"{speaker}-{chapter}-0000 GO DO YOU HEAR\n"
        )
    put(media["speech"], folder / "84/122/84-122-0000.flac")
    rows = read("librispeech", folder, tmp_path / "dev.jsonl", recordings=1)
    assert [(row["id"], row["speaker"]) for row in rows] == [
        ("174-50-0000", "174"),
        ("84-121-0000", "84"),
    ]
    assert {row["text"] for row in rows} == {"go do you hear"}


@pytest.mark.parametrize(("below", "count"), [("", 2), ("wav/train", 1)])  # one is not transcribed
def test_aishell(tmp_path: Path, media: dict[str, Path], below: str, count: int) -> None:
    folder = tmp_path / "data_aishell"
    put(media["speech"], folder / "wav/train/S0002/BAC009S0002W0122.wav")
    put(media["speech"], folder / "wav/dev/S0724/BAC009S0724W0121.wav")
    put(media["speech"], folder / "wav/train/S0002/not-transcribed.wav")
    (folder / "transcript").mkdir()
    (folder / "transcript" / "aishell_transcript_v0.8.txt").write_text(
        "BAC009S0002W0122 而 对 楼市 成交\nBAC009S0724W0121 广州市 房地产\n", encoding="utf-8"
    )
    rows = read("aishell", folder / below, tmp_path / "out.jsonl", recordings=1)
    assert len(rows) == count
    row = next(row for row in rows if row["speaker"] == "S0002")
    assert (row["text"], row["lang"]) == ("而对楼市成交", "zh")


def test_coco(tmp_path: Path, media: dict[str, Path]) -> None:
    put(media["image"], tmp_path / "coco/val2017/000000000139.jpg")
    put(media["image"], tmp_path / "coco/val2017/000000000285.jpg")
    tree = {
        "images": [
            {"id": 285, "file_name": "000000000285.jpg"},
            {"id": 139, "file_name": "000000000139.jpg"},
            {"id": 999, "file_name": "not-captioned.jpg"},
        ],
        "annotations": [
            {"image_id": 139, "id": 1, "caption": "A woman stands\nin the dining area."},
            {"image_id": 285, "id": 2, "caption": "A big brown bear."},
            {"image_id": 139, "id": 3, "caption": "A room with chairs. "},
            {"image_id": 998, "id": 4, "caption": "A picture that is not there."},
        ],
    }
    source = tmp_path / "coco/annotations/captions_val2017.json"
    source.parent.mkdir()
    source.write_text(json.dumps(tree))
    rows = read("coco", source, tmp_path / "out.jsonl", pictures=1, captions=1)
    assert [row["id"] for row in rows] == ["139", "285"]
    assert rows[0]["text"] == "A woman stands in the dining area."
    assert rows[0]["references"] == {"en": ["A room with chairs."]}
    assert "references" not in rows[1]


def test_imagefolder(tmp_path: Path, media: dict[str, Path]) -> None:
    put(media["image"], tmp_path / "pets/tabby_cat/deep/1.png")
    put(media["image"], tmp_path / "dogs/1.PNG")
    (tmp_path / "pets/dog").symlink_to(tmp_path / "dogs")
    put(media["image"], tmp_path / "pets/cover.png")
    (tmp_path / "pets/dog/notes.txt").write_text("x")
    rows = read("imagefolder", tmp_path / "pets", tmp_path / "out.jsonl", files=1, pictures=1)
    assert [(row["id"], row["label"], row["text"]) for row in rows] == [
        ("dog/1", "dog", "dog"),
        ("tabby_cat/deep/1", "tabby_cat", "tabby cat"),
    ]


def test_pictures_of_one_name_keep_their_extensions(tmp_path: Path, media: dict[str, Path]) -> None:
    for name in ("a.jpg", "a.jpg.png", "a.png", "b.png"):
        put(media["image"], tmp_path / "pets/dog" / name)
    rows = read("imagefolder", tmp_path / "pets", tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == ["dog/a.jpg", "dog/a.jpg.png", "dog/a.png", "dog/b"]


def test_a_name_that_is_not_utf_8_is_told(tmp_path: Path, media: dict[str, Path]) -> None:
    name = os.fsdecode(b"\xff.png")
    put(media["image"], tmp_path / "pets/dog" / name)
    with pytest.raises(
        DataError, match=r"pets/dog/\\udcff\.png': its name or its text is not UTF-8"
    ):
        write_manifest(LAYOUTS["imagefolder"](tmp_path / "pets", Left()), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("layout", "prepare", "said"),
    [
        ("ljspeech", lambda folder: None, r"metadata\.csv cannot be read"),
        (
            "ljspeech",
            lambda folder: (folder / "metadata.csv").write_text("LJ0|x\n\nLJ1\n"),
            r"metadata\.csv:3: expected ID\|text",
        ),
        (
            "ljspeech",
            lambda folder: (folder / "metadata.csv").write_text("LJ0|x\n../../x|y\n"),
            r"metadata\.csv:2: '\.\./\.\./x\.wav' leads out of .*/wavs",
        ),
        (
            "librispeech",
            lambda folder: give(folder / "1" / "2" / "1-2.trans.txt", "/x GO\n"),
            r"1-2\.trans\.txt:1: '/x\.flac' leads out of .*/1/2",
        ),
        ("librispeech", lambda folder: None, "there is nothing that is laid out like this"),
        ("imagefolder", lambda folder: folder.rmdir(), "is not a folder"),
        ("aishell", lambda folder: None, "transcript is not a folder"),
        ("coco", lambda folder: None, "cannot be read: Is a directory"),
    ],
)
def test_what_is_laid_out_otherwise_is_refused(
    tmp_path: Path, layout: str, prepare: Callable[[Path], object], said: str
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    prepare(folder)
    with pytest.raises(DataError, match=said):
        write_manifest(LAYOUTS[layout](folder, Left()), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


PICTURE: dict[str, Any] = {"id": 1, "file_name": "1.png"}


@pytest.mark.parametrize(
    ("images", "annotations", "said"),
    [
        ([], None, r" holds no captions: 'annotations'"),
        ({}, [], r":images: expected a list, got {}"),
        ([PICTURE, 7], [], r":images\[1\]: expected an object, got 7"),
        ([PICTURE | {"file_name": 7}], [], r":images\[0\]: file_name must be a string, got 7"),
        ([PICTURE, PICTURE | {"id": "2"}], [], r":images\[1\]: id '2' is of another type than"),
        ([PICTURE | {"id": [1]}], [], r":images\[0\]: id must be a number or a string, got \[1\]"),
        ([PICTURE | {"file_name": "../y"}], [], r":images\[0\]: '\.\./y' leads out of .*/x"),
        ([PICTURE], [{"image_id": 1}], r":annotations\[0\]: caption must be a string, got None"),
        (
            [PICTURE],
            [{"image_id": 1, "caption": 7}],
            r":annotations\[0\]: caption must be a string, got 7",
        ),
    ],
)
def test_captions_of_another_form_are_refused(
    tmp_path: Path, images: Any, annotations: Any, said: str
) -> None:
    tree = {"images": images} | ({} if annotations is None else {"annotations": annotations})
    (tmp_path / "captions_x.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=rf"captions_x\.json{said}"):
        list(LAYOUTS["coco"](tmp_path / "captions_x.json", Left()))


def test_captions_that_are_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    (tmp_path / "captions_x.json").write_text('{"images": ' + "[" * 200_000)
    with pytest.raises(DataError, match=r"captions_x\.json holds no captions: "):
        list(LAYOUTS["coco"](tmp_path / "captions_x.json", Left()))


def test_a_place_that_takes_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_manifest([{"id": "a", "text": "b"}], tmp_path / "file" / "out.jsonl")
