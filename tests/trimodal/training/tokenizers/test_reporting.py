import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from trimodal.errors import StorageError
from trimodal.training.tokenizers import reporting
from trimodal.training.tokenizers.reporting import STEPS_A_LINE, StepReporter


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_a_step_and_plain_progress_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, total = tmp_path / "metrics.jsonl", STEPS_A_LINE + 2
    with StepReporter(path, total, 0) as reporter:
        for step in range(1, total + 1):
            numbers = {"loss": 1 / step, "gradient_norm": 2.0, "learning_rate": 0.1}
            reporter.step(step, numbers)
            assert len(lines(path)) == step, "it is in the file at once"
    assert lines(path)[2] == {
        "step": 3, "loss": 0.3333333, "gradient_norm": 2.0, "learning_rate": 0.1
    }  # fmt: skip
    name = tmp_path.name
    assert capsys.readouterr().out.splitlines() == [
        f"{name}: step {STEPS_A_LINE}/{total}  loss 0.02",
        f"{name}: step {total}/{total}  loss {1 / total:.3g}",
    ]


def test_it_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n')
    with StepReporter(path, 9, 1) as reporter:
        reporter.step(2, {"loss": 0.25})
    assert [line["loss"] for line in lines(path)] == [0.5, 0.25]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(tmp_path: Path, number: float) -> None:
    """Other readers of JSON know no NaN."""
    with StepReporter(tmp_path / "metrics.jsonl", 9, 0) as reporter:
        reporter.step(1, {"loss": number, "psnr": 3.0})
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": None, "psnr": 3.0}]


def test_a_terminal_gets_a_bar_and_no_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with StepReporter(tmp_path / "metrics.jsonl", 2, 0) as reporter:
        reporter.step(1, {"loss": 0.5, "learning_rate": 0.1})
        reporter.step(2, {"loss": 0.25, "learning_rate": 0.1})
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{tmp_path.name}: 100%" in said.err
    assert "2/2" in said.err
    assert "loss=0.25" in said.err
    assert "learning_rate" not in said.err


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"metrics\.jsonl cannot be written: Is a directory"):
        StepReporter(tmp_path / "metrics.jsonl", 2, 0)


def test_a_full_disk_is_named_once(tmp_path: Path) -> None:
    """What is still in the buffer fails once more when the file is closed."""
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")

    def report() -> None:
        with StepReporter(tmp_path / "metrics.jsonl", 2, 0) as reporter:
            reporter.step(1, {"loss": 0.5})

    with pytest.raises(StorageError, match=r"metrics\.jsonl cannot be written: No space left"):
        report()


def test_numbers_that_nobody_follows_are_not_shown() -> None:
    assert set(reporting.HIDDEN) == {"learning_rate", "gradient_norm"}
