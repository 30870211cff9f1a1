import argparse
import re
import shutil
from pathlib import Path

import pytest

from trimodal.cli import guarded
from trimodal.cli.judge import COMMAND
from trimodal.testing import write_tiny_manifest


def _run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    options = parser.parse_args([str(argument) for argument in arguments])
    return guarded(lambda: COMMAND.run(options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train.jsonl`, `test.jsonl` and hardly trained judges in `judges`."""
    folder = tmp_path_factory.mktemp("judge")
    write_tiny_manifest(folder, rows=16, complete=True)
    write_tiny_manifest(folder, rows=8, name="test", complete=True)
    train = ("train", "--data", folder / "train.jsonl", "--out", folder / "judges")
    assert _run(*train, "--steps", "1") == 0
    return folder


def test_training_says_what_it_wrote(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "more" / "judges"
    arguments = ("train", "--data", folder / "train.jsonl", "--out", out, "--steps", "1")
    assert _run(*arguments, "--seed", "5") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}: judges of image and speech with 4 labels\n"
    assert "judges trained on 128 of 128 rows" in captured.err
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    weights = (out / "model.safetensors").read_bytes()
    assert weights != (folder / "judges" / "model.safetensors").read_bytes()
    assert _run(*arguments) == 0  # former judges are replaced
    assert (out / "model.safetensors").read_bytes() == (
        folder / "judges" / "model.safetensors"
    ).read_bytes()


def test_testing_prints_the_accuracies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("test", folder / "judges", "--data", folder / "test.jsonl") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line, name in zip(lines, ("image", "speech"), strict=True):
        assert re.fullmatch(rf"{name}  accuracy \d+\.\d  macro-F1 \d+\.\d  of 8 files", line)
    assert _run("test", folder / "judges", "--data", folder / "train.jsonl") == 0
    assert "(these are the rows that the judges were trained on)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("test", "nowhere", "--data", "test.jsonl"), 64, "nowhere holds no judges"),
        (("test", "judges", "--data", "no.jsonl"), 65, "no.jsonl cannot be read"),
        (("train", "--data", "no.jsonl", "--out", "new"), 65, "no.jsonl cannot be read"),
        (("train", "--data", "test.jsonl", "--out", "used"), 64, "used holds no judges"),
        (("train", "--data", "test.jsonl", "--out", "test.jsonl"), 64, "would be written over"),
        (("train", "--data", "test.jsonl", "--out", "used/f"), 64, "used/f cannot be used"),
        (("train", "--data", "test.jsonl", "--out", "new", "--seed", "-1"), 64, "seed: must be"),
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
    shutil.rmtree("used", ignore_errors=True)
    Path("used").mkdir()
    Path("used", "f").write_text("mine")
    assert _run(*arguments) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("trimodal: error: ")
    assert message in error
    assert Path("used", "f").read_text() == "mine"


def test_no_steps_are_a_mistake(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _run("train", "--data", folder / "train.jsonl", "--out", folder / "x", "--steps", "0")
    assert "0 is not at least 1" in capsys.readouterr().err
