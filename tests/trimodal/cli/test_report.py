import argparse
from pathlib import Path

import pytest
import torch

from trimodal.cli import guarded
from trimodal.cli.report import COMMAND
from trimodal.config import ContrastiveConfig, DataConfig, ObjectivesConfig, RunConfig, dump_config
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.processors import TrimodalProcessor
from trimodal.schema import to_dict
from trimodal.testing import tiny_model_config, tiny_tokenizer, write_tiny_manifest


def _run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    options = parser.parse_args([str(argument) for argument in arguments])
    return guarded(lambda: COMMAND.run(options))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run whose configuration names no test data."""
    torch.manual_seed(0)
    manifest = write_tiny_manifest(tmp_path, rows=8)
    config = RunConfig(
        run_dir=str(tmp_path / "run"),
        data=DataConfig(train=(str(manifest),), tokenizer="text.model"),
        model=tiny_model_config(),
        objectives=ObjectivesConfig(contrastive=ContrastiveConfig()),
    )
    model = TrimodalModel(TrimodalConfig(architecture=to_dict(config.model)))
    model.processor = TrimodalProcessor(config.model, tiny_tokenizer())
    model.save_pretrained(tmp_path / "run" / "model")
    dump_config(config, tmp_path / "run" / "config.yaml")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    return tmp_path / "run"


def test_a_report_is_written_and_named(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(run_dir, "--data", run_dir.parent / "train.jsonl") == 0
    assert capsys.readouterr().out.startswith(f"{run_dir}/report.html: ")
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert 'id="makes"' not in page  # this model generates nothing
    assert (run_dir / "results.json").is_file()


def test_mistakes_are_one_line_and_an_exit_code(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(run_dir) == 64
    assert "names neither data.test nor data.validation; give --data" in capsys.readouterr().err
    assert _run(run_dir.parent / "nowhere") == 64
    assert "there is no such folder" in capsys.readouterr().err
    nothing = run_dir.parent / "nothing"
    assert _run(run_dir, "--data", run_dir.parent / "train.jsonl", "--judges", nothing) == 64
    assert "nothing holds no judges" in capsys.readouterr().err
    (run_dir / "config.yaml").write_text("run_dir: x\nsurprise: 1\n")
    assert _run(run_dir, "--data", run_dir.parent / "train.jsonl") == 64
    assert "surprise: no such key" in capsys.readouterr().err
