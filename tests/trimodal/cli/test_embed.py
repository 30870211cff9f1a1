import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from trimodal.cli import guarded
from trimodal.cli.embed import COMMAND
from trimodal.models import TrimodalModel
from trimodal.testing import (
    assert_close,
    tiny_model,
    write_tiny_manifest,
)


def _run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    options = parser.parse_args([str(argument) for argument in arguments])
    return guarded(lambda: COMMAND.run(options))


def test_weights_are_kept_as_asked(folder: Path, tmp_path: Path) -> None:
    data = folder / "test.jsonl"
    for weights in ("fp32", "int8"):
        out = tmp_path / f"{weights}.npz"
        options = ("--out", out, "--weights", weights, "--device", "cpu")
        assert _run(folder / "model", "--data", data, *options) == 0
    full, narrow = (np.load(tmp_path / f"{weights}.npz")["fused"] for weights in ("fp32", "int8"))
    assert not np.array_equal(full, narrow)
    assert np.abs(full - narrow).max() < 0.1


@pytest.fixture(scope="module")
def model() -> TrimodalModel:
    """Random weights."""
    return tiny_model()


@pytest.fixture(scope="module")
def folder(model: TrimodalModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in `model`, and `test.jsonl`."""
    folder = tmp_path_factory.mktemp("embed")
    model.save_pretrained(folder / "model")
    manifest = write_tiny_manifest(folder, rows=16, name="test")
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    lines[1]["text_en"] = "another language than its own"
    manifest.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return folder


def test_the_file_is_what_other_programs_rely_on(folder: Path, model: TrimodalModel) -> None:
    out = folder / "vectors.npz"
    assert _run(folder / "model", "--data", folder / "test.jsonl", "--out", out) == 0
    lines = [json.loads(line) for line in (folder / "test.jsonl").open(encoding="utf-8")]
    with np.load(out, allow_pickle=False) as arrays:
        assert set(arrays) == {"id", "image", "text", "speech", "fused"}
        assert arrays["id"].tolist() == [line["id"] for line in lines]
        columns = {
            "image": [line.get("image") and str(folder / line["image"]) for line in lines],
            "text": [line.get("text") for line in lines],
            "speech": [line.get("speech") and str(folder / line["speech"]) for line in lines],
        }
        expected = model.embed(**columns)
        for name in ("image", "text", "speech", "fused"):
            assert arrays[name].dtype == np.float32
            assert arrays[name].shape == (16, 16)
            assert_close(arrays[name], expected[name], "packed-vs-alone-fp32")
            there = ~np.isnan(arrays[name]).any(axis=1)
            norms = np.linalg.norm(arrays[name][there], axis=1)
            assert_close(norms, np.ones(there.sum()), "unit-norm")
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere", "--data", "test.jsonl", "--out", "x.npy"), 64, "x.npy must end in .npz"),
        (("nowhere", "--data", "test.jsonl", "--out", "x.npz"), 64, "is not a model folder"),
        (("model", "--data", "no.jsonl", "--out", "x.npz"), 65, "no.jsonl cannot be read"),
        (("model", "--data", "test.jsonl", "--out", "no/x.npz"), 64, "there is no folder no"),
        (("no", "--data", "x.npz", "--out", "./x.npz"), 64, "x.npz would be written over"),
        (("model", "--data", "test.jsonl", "--out", "model/x.npz"), 64, "written into model"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    assert _run(*arguments) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("trimodal: error: ")
    assert message in error
    assert not (folder / "x.npz").exists()


def test_a_bad_medium_leaves_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    (folder / "bad.jsonl").write_text('{"id": "a", "speech": "broken.wav"}\n')
    out = folder / "bad.npz"
    assert _run(folder / "model", "--data", folder / "bad.jsonl", "--out", out) == 65
    assert f"{folder / 'bad.jsonl'}:1: speech is truncated or corrupt" in capsys.readouterr().err
    assert not out.exists()
