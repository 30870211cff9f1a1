import re
from pathlib import Path

import pytest

import trimodal
from trimodal.cli import main
from trimodal.testing import tiny_model, write_tiny_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_what_it_writes_loads_with_its_classes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_tiny_manifest(tmp_path / "data", rows=8, complete=True)
    out = tmp_path / "tuned"
    arguments = [str(folder), "--data", str(manifest), "--out", str(out), "--epochs", "2"]
    assert main(["finetune", *arguments, "--inputs", "image", "--lora", "2"]) == 0
    assert trimodal.load(out).class_labels == ("blue", "green", "red", "white")
    first, counted, second, written = capsys.readouterr().err.splitlines()
    form = r"epoch {} of 2: loss \d\.\d{{4}}, \d+\.\d% of the rows right"
    assert re.fullmatch(form.format(1), first)
    assert re.fullmatch(form.format(2), second)
    assert re.fullmatch(r"trained on 16 of 16 rows, loss \d\.\d{4}", counted)
    assert written == f"model with 4 classes written to {out}"


def test_an_occupied_folder_is_refused_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", "missing", "--data", "missing", "--out", str(folder)]) == 64
    assert capsys.readouterr().err == f"trimodal: error: --out {folder} is not empty\n"


def test_a_folder_that_is_no_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["finetune", str(tmp_path), "--data", "x.jsonl", "--out", str(tmp_path / "out")]
    assert main(arguments) == 64
    assert "is not a model folder" in capsys.readouterr().err
