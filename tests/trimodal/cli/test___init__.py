import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trimodal.cli import check_output, guarded, main
from trimodal.errors import ConfigError, DataError, StorageError, TrimodalError
from trimodal.testing import write_tiny_manifest


def _fail(error: BaseException) -> Callable[[], int]:
    def action() -> int:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (TrimodalError("a mistake"), 1, "trimodal: error: a mistake\n"),
        (DataError("a row"), 65, "trimodal: error: a row\n"),
        (StorageError("a disk"), 74, "trimodal: error: a disk\n"),
        (KeyboardInterrupt(), 130, "trimodal: interrupted\n"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    assert guarded(_fail(error)) == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_reader_that_goes_ends_it_quietly(lines: int, buffered: str) -> None:
    code = (
        "import sys; from trimodal.cli import guarded; sys.stdin.read(); "
        f"sys.exit(guarded(lambda: print('line\\n' * {lines}) or 0))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONUNBUFFERED": buffered}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, error = process.communicate()
    assert (process.returncode, error) == (141, b"")


def test_a_path_that_is_no_text_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8", errors="strict"))
    assert guarded(lambda: print(os.fsdecode(b"\xff.jsonl")) or 0) == 0
    assert raw.getvalue() == b"\\udcff.jsonl\n"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("data.jsonl", "data.jsonl would be written over, and it is read"),
        ("sub/../data.jsonl", "would be written over"),
        ("link", "link would be written over"),
        ("model/x", "would be written into .*model, which is read"),
        ("model-link/sub/x", "would be written into .*model, which is read"),
    ],
)
def test_an_output_that_is_an_input_is_refused(tmp_path: Path, output: str, message: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to("data.jsonl")
    (tmp_path / "model-link").symlink_to("model")
    inputs = [tmp_path / "model", tmp_path / "data.jsonl"]
    with pytest.raises(ConfigError, match=message):
        check_output(tmp_path / output, inputs)
    check_output(tmp_path / "model.json", inputs)
    check_output(tmp_path / "nowhere" / "data.jsonl", inputs)


@pytest.mark.parametrize(
    "arguments",
    [
        "train nowhere",
        "train nowhere training.max_steps=1",
        "eval nowhere --data test.jsonl",
        "embed nowhere --data test.jsonl --out x.npz",
        "generate nowhere --to text --text red",
        "generate nowhere --to text --data test.jsonl --from image --out new",
        "finetune nowhere --data test.jsonl --out new",
        "judge test nowhere --data test.jsonl",
        "tokenizer eval nowhere --data test.jsonl",
        "tokenizer train vision --data test.jsonl --out new --config nowhere",
        "tokenizer train vocoder --data test.jsonl --out new --tokenizer nowhere",
        "tokenizer train text --data test.jsonl --out test.jsonl/nowhere/text.model",
        "export nowhere",
        "report nowhere",
        "runs compare nowhere other",
        "bench scaling nowhere",
        "data tokenize nowhere --out new",
        "data stats test.jsonl --json nowhere/x.json",
        "data stats test.jsonl --html nowhere/x.html",
        "serve nowhere --port 0",
        "keys list nowhere",
        "keys revoke nowhere 00",
        "batch requests.jsonl out.jsonl --model nowhere",
    ],
)
def test_a_path_that_leads_nowhere_is_the_users_mistake(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
) -> None:
    assert _in_corpus(tmp_path, monkeypatch, arguments) == 64
    _check_sentence(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        "data split nowhere new",
        "data stats nowhere",
        "data import nowhere new",
        "data verify nowhere",
        "data manifest ljspeech nowhere new.jsonl",
        "data manifest coco nowhere new.jsonl",
        "tokenizer train text --data nowhere --out new",
        "tokenizer train vision --data nowhere --out new",
        "judge train --data nowhere --out new",
        "embed model --data nowhere --out x.npz",
        "batch nowhere out.jsonl --model model",
    ],
)
def test_data_that_are_not_there_are_a_fault_of_the_data(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
) -> None:
    assert _in_corpus(tmp_path, monkeypatch, arguments) == 65
    _check_sentence(capsys)


def test_overrides_may_stand_behind_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text("run_dir: runs/x")
    assert _in_corpus(tmp_path, monkeypatch, "data tokenize run.yaml --out new run_dir.x=1") == 64
    assert "run_dir.x: run_dir is a value" in capsys.readouterr().err
    for arguments in ("data tokenize run.yaml --out new word", "data check test.jsonl --x a=b"):
        with pytest.raises(SystemExit) as ended:
            main(arguments.split())
        assert ended.value.code == 2
        assert "unrecognized arguments: " in capsys.readouterr().err


def _in_corpus(folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: str) -> int:
    """The exit code of a command where there are `test.jsonl` and `requests.jsonl` alone."""
    write_tiny_manifest(folder, rows=4, name="test")
    request = '{"custom_id": "a", "url": "/v1/embeddings", "body": {"input": "red"}}'
    (folder / "requests.jsonl").write_text(request)
    monkeypatch.chdir(folder)
    return main(arguments.split())


def _check_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("trimodal: error: ")
    assert "nowhere" in line
    assert "Errno" not in line
