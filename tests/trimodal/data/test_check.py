import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from trimodal.config import SpeechInputConfig, VisionInputConfig
from trimodal.data.check import check_manifest, take_census
from trimodal.data.row import OTHERS
from trimodal.data.tokenized import KEYS
from trimodal.processors import SpeechProcessor, VisionProcessor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good picture and utterance, and several ways in which others are bad."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 12), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.png")
    tone = np.sin(np.arange(8000) / 10).astype(np.float32)
    soundfile.write(tmp_path / "good.flac", tone, 16_000)
    soundfile.write(tmp_path / "silent.wav", tone[:0], 16_000)
    soundfile.write(tmp_path / "nan.wav", np.full(80, np.nan), 16_000, subtype="FLOAT")
    png, flac = ((tmp_path / name).read_bytes() for name in ("good.png", "good.flac"))
    (tmp_path / "cut.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "cut.flac").write_bytes(flac[: len(flac) // 2])
    (tmp_path / "flipped.flac").write_bytes(flac[:200] + b"\xff" * 200 + flac[400:])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "text.flac").write_text("not speech")
    return tmp_path


def write(folder: Path, *rows: dict[str, Any] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path = folder / "m.jsonl"
    path.write_text("\n".join(lines))
    return path


GOOD = {"id": "good", "image": "good.png", "speech": "good.flac", "text": "x"}


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("text.png", "image is not a PNG, JPEG or WebP picture"),
        ("cut.png", "image is truncated or corrupt"),
        ("good.flac", "image is not a PNG, JPEG or WebP picture"),
    ],
)
def test_a_picture_that_cannot_be_decoded(folder: Path, name: str, cause: str) -> None:
    path = write(folder, GOOD, {"id": "a", "image": name})
    assert check_manifest(path) == [f"{path}:2: {folder / name}: {cause}"]


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("text.flac", "speech is not WAV, FLAC, OGG or MP3"),
        ("good.png", "speech is not WAV, FLAC, OGG or MP3"),
        ("silent.wav", "speech has no samples"),
        ("nan.wav", "speech has samples that are not finite, or not below 1e+12"),
        ("cut.flac", "speech is truncated or corrupt"),
        ("flipped.flac", "speech is truncated or corrupt"),
    ],
)
def test_speech_that_cannot_be_decoded(folder: Path, name: str, cause: str) -> None:
    path = write(folder, GOOD, {"id": "a", "speech": name})
    assert check_manifest(path) == [f"{path}:2: {folder / name}: {cause}"]


def test_every_problem_is_listed_in_the_order_of_the_rows(folder: Path) -> None:
    path = write(
        folder,
        {"id": "a", "image": "cut.png", "speech": "none.flac"},
        "{",
        GOOD,
        {"id": "a", "image": "cut.png", "speech": "silent.wav"},
    )
    cut = f"{folder}/cut.png: image is truncated or corrupt"
    assert check_manifest(path) == [
        f"{path}:1: speech 'none.flac' does not exist",
        f"{path}:1: {cut}",
        f"{path}:2: not JSON: Expecting property name enclosed in double quotes at column 2",
        f"{path}:4: id 'a' is already used at {path}:1",
        f"{path}:4: {cut}",
        f"{path}:4: {folder}/silent.wav: speech has no samples",
    ]


def test_a_manifest_that_is_missing_or_empty_is_a_problem(folder: Path) -> None:
    missing = folder / "none.jsonl"
    assert check_manifest(missing) == [
        f"manifest {missing} cannot be read: No such file or directory"
    ]
    path = write(folder, "")
    assert check_manifest(path) == [f"manifest {path} has no rows"]


def test_the_limits_are_those_of_the_processors(folder: Path) -> None:
    path = write(folder, GOOD)
    assert check_manifest(path) == []
    problems = check_manifest(
        path,
        VisionProcessor(VisionInputConfig(max_pixels=95)),
        SpeechProcessor(SpeechInputConfig(max_seconds=0.4)),
    )
    assert problems == [
        f"{path}:1: {folder}/good.png: image has more than 95 pixels",
        f"{path}:1: {folder}/good.flac: speech is 0.5 s long, the limit is 0.4 s",
    ]


def test_the_census_counts_what_there_is(folder: Path) -> None:
    spoken = {"speech": "good.flac", "speaker": "s", "speech_lang": "zh"}
    path = write(
        folder,
        GOOD | {"label": "x", "group": "g"},
        {"id": "b", "text_en": "x", "text_zh": "叉", "group": "g", **spoken},
        {"id": "c", "question": "q?", "answer": "a", **spoken},
    )
    census = take_census(path)
    assert census.problems == []
    assert census.rows == 3
    assert census.rows_with == {"image": 1, "text": 2, "speech": 3, "question": 1, "label": 1}
    assert census.texts == {"en": 2, "zh": 1}
    assert census.utterances == {"zh": 2, "unnamed": 1}
    assert census.speakers == {"s": 2}
    assert census.groups == {"g": 2}
    assert census.seconds == pytest.approx(1.5)
    assert census.summary().splitlines() == [
        "rows: 3 (image 1, label 1, question 1, speech 3, text 2)",
        "texts: en 2, zh 1",
        "speech: unnamed 1, zh 2, 0.00 hours, 1 speakers",
        "labels: 1, groups: 1",
    ]


def test_keys_that_nothing_reads_are_counted_and_slips_are_named(folder: Path) -> None:
    odd = {"spech": "good.flac", "Lang": "en", "artist": "x", "caption": "y", "transcript": "z"}
    path = write(folder, GOOD | odd, {"id": "b", "text": "x", "artist": "x", "image_codes": {}})
    census = take_census(path)
    assert census.problems == []
    assert census.warnings() == [
        "'spech' in 1 row is unknown and kept as metadata; did you mean 'speech'?",
        "'Lang' in 1 row is unknown and kept as metadata; did you mean 'lang'?",
        "'caption' in 1 row is unknown and kept as metadata; did you mean 'text'?",
    ]
    told = census.summary().splitlines()[-1]
    assert told == "kept as metadata: artist 2, spech 1, Lang 1, caption 1"


def test_of_many_unknown_keys_the_first_are_told(folder: Path) -> None:
    path = write(folder, {"id": "a", "text": "x", **{f"{i:03d}": i for i in range(30)}})
    told = take_census(path).summary().splitlines()[-1]
    assert told.startswith("kept as metadata: 000 1, 001 1, ")
    assert told.endswith("019 1 and 10 more keys")


def test_what_tokenizing_writes_is_known() -> None:
    assert set(KEYS.values()) <= set(OTHERS)
