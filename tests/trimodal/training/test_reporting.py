import json
from dataclasses import replace
from pathlib import Path

import pytest

from trimodal.config import RunConfig
from trimodal.errors import StorageError
from trimodal.training.reporting import Reporter
from trimodal.training.run import RunDirectory


def test_a_line_a_step_and_plain_progress(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(tmp_path)
    with Reporter(run, config, 0) as reporter:
        for step in (1, 2):
            reporter.step(step, {"loss": 1 / step, "tokens_per_second": 1234.5})
            assert len(run.metrics.read_text().splitlines()) == step
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == [
        {"step": 1, "loss": 1.0, "tokens_per_second": 1234.5},
        {"step": 2, "loss": 0.5, "tokens_per_second": 1234.5},
    ]
    assert capsys.readouterr().out == "step 1/6  loss 1  1,234 tokens/s\n"


def test_tensorboard_gets_the_numbers(config: RunConfig, tmp_path: Path) -> None:
    config = replace(config, training=replace(config.training, trackers=("tensorboard",)))
    with Reporter(RunDirectory(tmp_path), config, 0) as reporter:
        reporter.step(1, {"loss": 0.5, "validation/image->text": 0.25})
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()
    assert b"train/validation" not in events.read_bytes()


def test_a_file_that_cannot_be_opened_is_named(config: RunConfig, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.metrics.mkdir()
    with pytest.raises(StorageError, match=r"metrics\.jsonl cannot be written: Is a directory"):
        Reporter(run, config, 0)


def test_a_full_disk_is_named_once(config: RunConfig, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.metrics.symlink_to("/dev/full")

    def report() -> None:
        with Reporter(run, config, 0) as reporter:
            reporter.step(1, {"loss": 0.5})

    with pytest.raises(StorageError, match=r"metrics\.jsonl cannot be written: No space left"):
        report()


def test_scores_on_held_out_samples_are_said(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Reporter(RunDirectory(tmp_path), config, 0) as reporter:
        reporter.step(3, {"validation/image->text": 0.25, "validation/text->image": 1.0})
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "step 3/6  validation R@1, %:  image->text 25.0  text->image 100.0"
