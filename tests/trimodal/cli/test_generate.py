import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import trimodal
from trimodal import storage
from trimodal.cli import guarded
from trimodal.cli.generate import COMMAND
from trimodal.data import read_manifest
from trimodal.errors import StorageError
from trimodal.models import TrimodalModel
from trimodal.models.decoding import Decoding
from trimodal.testing import tiny_model, write_tiny_manifest


def _run(*arguments: str | Path | int) -> int:
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    options = parser.parse_args([str(argument) for argument in arguments])
    return guarded(lambda: COMMAND.run(options))


@pytest.fixture(scope="module")
def model() -> TrimodalModel:
    return tiny_model()


@pytest.fixture(scope="module")
def folder(model: TrimodalModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in `model`, and six complete rows in `test.jsonl`."""
    folder = tmp_path_factory.mktemp("generate")
    model.save_pretrained(folder / "model")
    manifest = write_tiny_manifest(folder, rows=6, name="test", complete=True)
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["question"] = "is it red?"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_a_text_is_printed(
    folder: Path, model: TrimodalModel, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = folder / "test-0.png"
    assert _run(folder / "model", "--image", picture, "--to", "text", "--lang", "en") == 0
    (expected,) = model.generate(image=[picture], to="text", lang="en")
    assert capsys.readouterr().out == f"{expected}\n"


def test_weights_are_kept_as_asked(folder: Path, tmp_path: Path) -> None:
    arguments = ("--text", "a red square", "--to", "speech", "--lang", "en", "--weights", "int8")
    assert _run(folder / "model", *arguments, "--out", tmp_path / "a.wav") == 0
    found, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    narrow = trimodal.load(folder / "model", weights="int8")
    (expected,) = narrow.generate(text=["a red square"], to="speech", lang="en")
    assert isinstance(expected, np.ndarray)
    assert np.abs(np.asarray(found) - expected).max() <= 2 / 2**15


def test_a_device_that_is_not_there_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _run(folder / "model", "--text", "x", "--to", "text", "--device", "cuda") == 64
    assert "--device cuda: this machine has no usable CUDA device" in capsys.readouterr().err


def test_a_text_is_written(folder: Path, tmp_path: Path, model: TrimodalModel) -> None:
    out = tmp_path / "said.txt"
    arguments = ("--text", "a red square", "--to", "text", "--temperature", "1", "--seed", 4)
    assert _run(folder / "model", *arguments, "--max-tokens", 5, "--out", out) == 0
    decoding = Decoding(temperature=1.0, max_tokens=5)
    (expected,) = model.generate(text=["a red square"], to="text", seed=4, decoding=decoding)
    assert out.read_text(encoding="utf-8") == f"{expected}\n"


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".webp"])
def test_a_picture_is_written(
    folder: Path, tmp_path: Path, model: TrimodalModel, suffix: str
) -> None:
    out = tmp_path / f"drawn{suffix}"
    arguments = ("--text", "a red square", "--to", "image", "--size", "8x12", "--seed", 3)
    assert _run(folder / "model", *arguments, "--out", out) == 0
    (expected,) = model.generate(text=["a red square"], to="image", size=(8, 12), seed=3)
    with Image.open(out) as image:
        found = np.asarray(image.convert("RGB"))
    assert found.shape == (8, 12, 3)
    if suffix != ".jpg":
        assert np.array_equal(found, expected)


def test_how_codes_are_chosen_is_told(folder: Path, tmp_path: Path, model: TrimodalModel) -> None:
    out = tmp_path / "drawn.png"
    given = ("--text", "a red square", "--to", "image", "--size", "8x12")
    chosen = ("--schedule", "linear", "--redraws", "0", "--steps", "3", "--earliness", "0.5")
    others = ("--choice-temperature", "2", "--device", "cpu", "--weights", "fp32")
    assert _run(folder / "model", *given, *chosen, *others, "--out", out) == 0
    decoding = Decoding(
        guidance=1.5, schedule="linear", redraws=0, steps=3, earliness=0.5, choice_temperature=2.0
    )
    (expected,) = model.generate(text=["a red square"], to="image", size=(8, 12), decoding=decoding)
    with Image.open(out) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), expected)


def test_speech_is_written(folder: Path, tmp_path: Path, model: TrimodalModel) -> None:
    arguments = ("--image", folder / "test-0.png", "--speech", folder / "test-1.wav")
    for suffix in (".wav", ".flac"):
        out = tmp_path / f"spoken{suffix}"
        assert _run(folder / "model", *arguments, "--to", "speech", "--out", out) == 0
        found, rate = soundfile.read(out, dtype="float32")
        assert rate == model.sample_rate
        (expected,) = model.generate(
            image=[folder / "test-0.png"], speech=[folder / "test-1.wav"], to="speech"
        )
        assert isinstance(expected, np.ndarray)
        assert np.abs(np.asarray(found) - expected).max() <= 2 / 2**15


def test_a_text_is_completed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(folder / "model", "--complete", "a red", "--to", "text") == 0
    assert capsys.readouterr().out.startswith("a red")


@pytest.mark.parametrize(("to", "suffix"), [("image", ".png"), ("speech", ".wav")])
def test_a_manifest_of_media(folder: Path, tmp_path: Path, to: str, suffix: str) -> None:
    """Has the ids of the input, reads as a manifest, and is the same in every run."""
    arguments = ("--data", folder / "test.jsonl", "--from", "text", "--to", to, "--steps", 2)
    lang = ("--lang", "zh") if to == "speech" else ()
    for name in ("first", "second"):
        assert _run(folder / "model", *arguments, "--out", tmp_path / name, *lang) == 0
    ids = [row.id for row in read_manifest(folder / "test.jsonl")]
    rows = read_manifest(tmp_path / "first" / "manifest.jsonl")
    assert [row.id for row in rows] == ids
    assert {row.speech_lang for row in rows} == {"zh" if to == "speech" else None}
    written = sorted(p.name for p in (tmp_path / "first" / to).iterdir())
    assert written == [f"{i:06d}{suffix}" for i in range(6)]
    for name in written:
        first, second = (tmp_path / run / to / name for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    assert _run(folder / "model", *arguments, "--out", tmp_path / "third", "--seed", 1) == 0
    paths = [tmp_path / run / to / name for run in ("first", "third") for name in written]
    contents = [path.read_bytes() for path in paths]
    assert contents[:6] != contents[6:]


def test_a_manifest_of_texts(folder: Path, tmp_path: Path) -> None:
    """The outputs of other rows and of other budgets change nothing."""
    arguments = ("--from", "image,speech", "--to", "text", "--temperature", "1", "--lang", "en")
    manifest = folder / "test.jsonl"
    lines = manifest.read_text(encoding="utf-8").splitlines()
    part = folder / "part.jsonl"
    part.write_text("\n".join(lines[:3:-1]) + "\n", encoding="utf-8")
    short = (*arguments, "--max-tokens", 4)
    assert _run(folder / "model", "--data", manifest, *short, "--out", tmp_path / "all") == 0
    budget = ("--token-budget", 1, "--out", tmp_path / "part")
    assert _run(folder / "model", "--data", part, *short, *budget) == 0
    found = [
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in (tmp_path / "all" / "manifest.jsonl", tmp_path / "part" / "manifest.jsonl")
    ]
    assert found[1] == found[0][:3:-1]
    assert all(set(line) == {"id", "text", "lang"} for line in found[0])
    assert {line["lang"] for line in found[0]} == {"en"}
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["manifest.jsonl"]


@pytest.mark.parametrize(("to", "kept"), [("image", False), ("text", True)])
def test_where_the_manifest_is_everything_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, kept: bool
) -> None:
    """An older manifest goes before its media are written over; texts lie in it themselves."""
    arguments = ("--data", folder / "test.jsonl", "--from", "text", "--to", to, "--out", tmp_path)
    manifest = tmp_path / "manifest.jsonl"
    assert _run(folder / "model", *arguments) == 0
    old = manifest.read_bytes()
    assert _run(folder / "gone", *arguments) > 0
    assert manifest.read_bytes() == old
    there: list[bool] = []

    def fail(*_: Any) -> None:
        there.append(manifest.exists())
        raise StorageError("full")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_whole", fail)
        assert _run(folder / "model", *arguments) == StorageError.exit_code
    assert there == [kept]
    assert manifest.exists() == kept
    assert _run(folder / "model", *arguments) == 0
    assert manifest.read_bytes() == old


def test_an_answer_reads_the_question(folder: Path, tmp_path: Path) -> None:
    arguments = ("--data", folder / "test.jsonl", "--from", "image,text", "--to", "text")
    out = tmp_path / "answers"
    assert _run(folder / "model", *arguments, "--answer", "--max-tokens", 3, "--out", out) == 0
    assert len((out / "manifest.jsonl").read_text(encoding="utf-8").splitlines()) == 6


MISTAKES = {
    "nothing": (["--to", "text"], "nothing to start from: give --image, --text, --speech or"),
    "data-and-text": (
        ["--to", "text", "--data", "test.jsonl", "--text", "x"],
        "--text: with --data, name what to start from by --from",
    ),
    "data-alone": (
        ["--to", "text", "--data", "test.jsonl", "--from", "image"],
        "--data needs --from, what to start from, and --out, a folder",
    ),
    "no-from": (
        ["--to", "text", "--data", "test.jsonl", "--out", "new"],
        "--data needs --from, what to start from, and --out, a folder",
    ),
    "from-alone": (
        ["--to", "text", "--text", "x", "--from", "image"],
        "--from: needs --data, whose rows it chooses from",
    ),
    "complete-picture": (
        ["--to", "image", "--complete", "x", "--out", "x.png"],
        "--complete: only a text can be completed",
    ),
    "no-file": (["--to", "image", "--text", "x"], "--out: names no file for the image"),
    "no-speech-file": (["--to", "speech", "--text", "x"], "--out: names no file for the speech"),
    "suffix": (
        ["--to", "image", "--text", "x", "--out", "x.gif"],
        "--out: x.gif must end in one of .png, .jpg, .jpeg, .webp",
    ),
    "speech-suffix": (
        ["--to", "speech", "--text", "x", "--out", "x.png"],
        "--out: x.png must end in one of .wav, .flac, .ogg, .mp3",
    ),
    "own-input": (
        ["--to", "image", "--image", "test-0.png", "--out", "test-0.png"],
        "test-0.png would be written over, and it is read",
    ),
    "into-the-model": (
        ["--to", "image", "--text", "x", "--out", "model/x.png"],
        "model/x.png would be written into model, which is read",
    ),
    "no-folder": (
        ["--to", "image", "--text", "x", "--out", "nowhere/x.png"],
        "nowhere/x.png cannot be written: there is no folder nowhere",
    ),
    "answer": (
        ["--to", "image", "--text", "x", "--answer", "--out", "x.png"],
        "an answer is a text; it cannot be generated as another modality",
    ),
    "size-of-text": (
        ["--to", "text", "--text", "x", "--size", "8x8"],
        "--size: decides nothing about the text that --to asks for",
    ),
    "size-of-speech": (
        ["--to", "speech", "--text", "x", "--size", "8x8", "--out", "x.wav"],
        "--size: decides nothing about the speech that --to asks for",
    ),
    "lang-of-image": (
        ["--to", "image", "--text", "x", "--lang", "en", "--out", "x.png"],
        "--lang: decides nothing about the image that --to asks for",
    ),
    "earliness-of-text": (
        ["--to", "text", "--text", "x", "--earliness", "1"],
        "--earliness: decides nothing about the text that --to asks for",
    ),
    "choice-temperature": (
        ["--to", "image", "--text", "x", "--out", "x.png", "--choice-temperature", "-1"],
        "choice_temperature: must be at least 0, got -1.0",
    ),
    "steps-of-text": (
        ["--to", "text", "--data", "test.jsonl", "--from", "image", "--steps", "8", "--out", "new"],
        "--steps: decides nothing about the text that --to asks for",
    ),
    "redraws-of-text": (
        ["--to", "text", "--image", "x.png", "--redraws", "0"],
        "--redraws: decides nothing about the text that --to asks for",
    ),
    "fewer-than-no-redraws": (
        ["--to", "image", "--text", "x", "--redraws", "-1", "--out", "x.png"],
        "redraws: must be at least 0, got -1",
    ),
    "tokens-of-image": (
        ["--to", "image", "--text", "x", "--max-tokens", "64", "--out", "x.png"],
        "--max-tokens: decides nothing about the image that --to asks for",
    ),
    "tokens-of-speech": (
        ["--to", "speech", "--text", "x", "--max-tokens", "64", "--out", "x.wav"],
        "--max-tokens: decides nothing about the speech that --to asks for",
    ),
    "own-manifest": (
        ["--to", "text", "--data", "old/manifest.jsonl", "--from", "image", "--out", "old"],
        "old/manifest.jsonl would be written over, and it is read",
    ),
    "long": (
        ["--to", "text", "--text", "x", "--max-tokens", "1000000000"],
        "max_tokens: a text of this model has at most 64 pieces, got 1000000000",
    ),
    "guidance": (
        ["--to", "text", "--text", "x", "--guidance", "101"],
        "guidance: must be at most 100, got 101.0",
    ),
    "temperature": (
        ["--to", "text", "--text", "x", "--temperature", "-1"],
        "temperature: must be at least 0, got -1.0",
    ),
    "top-p": (["--to", "text", "--text", "x", "--top-p", "0"], "top_p: 0.0 is not in (0, 1]"),
    "size": (
        ["--to", "image", "--text", "x", "--size", "5x5", "--out", "x.png"],
        "a picture of 5 x 5 pixels cannot be drawn",
    ),
    "no-model": (["--to", "text", "--text", "x"], "gone is not a model folder"),
    "no-picture": (
        ["--to", "text", "--image", "gone.png"],
        "image[0]: image gone.png cannot be read",
    ),
    "empty": (["--to", "text", "--text", " "], "text[0]: text is empty"),
    "no-manifest": (
        ["--to", "text", "--data", "gone.jsonl", "--from", "image", "--out", "new"],
        "manifest gone.jsonl cannot be read",
    ),
    "out-is-a-file": (
        ["--to", "text", "--data", "test.jsonl", "--from", "image", "--out", "test-0.png"],
        "--out test-0.png cannot be used: File exists",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(folder)
    arguments, message = MISTAKES[name]
    before = sorted(folder.rglob("*"))
    assert _run("gone" if name == "no-model" else "model", *arguments) > 0
    said = capsys.readouterr()
    assert said.err.startswith(f"trimodal: error: {message}")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--to", "video", "invalid choice: 'video'"),
        ("--from", "image,video", "'video' is not one of image, text, speech"),
        ("--size", "12", "'12' is not of the form HEIGHTxWIDTH"),
        ("--size", "-4x8", "'-4x8' is not of the form HEIGHTxWIDTH"),
        ("--lang", "fr", "invalid choice: 'fr'"),
        ("--steps", "0", "0 is not at least 1"),
        ("--max-tokens", "-1", "-1 is not at least 1"),
    ],
)
def test_an_option_that_is_none(
    capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    to = [] if option == "--to" else ["--to", "text"]
    with pytest.raises(SystemExit) as stopped:
        _run("model", *to, f"{option}={value}")
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_source_that_a_row_lacks_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "data.jsonl"
    manifest.write_text('{"id": "a", "text": "red"}\n')
    arguments = ("--data", manifest, "--from", "image", "--to", "text", "--out", tmp_path / "new")
    assert _run(folder / "model", *arguments) > 0
    assert f"{manifest}:1: has no image to generate from" in capsys.readouterr().err
    assert not (tmp_path / "new" / "manifest.jsonl").exists()
