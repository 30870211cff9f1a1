import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trimodal.cli import check_output, guarded
from trimodal.errors import ConfigError, DataError, TrimodalError


def _fail(error: BaseException) -> Callable[[], int]:
    def action() -> int:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (TrimodalError("a mistake"), 1, "trimodal: error: a mistake\n"),
        (DataError("a row"), 65, "trimodal: error: a row\n"),
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
