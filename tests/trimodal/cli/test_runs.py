from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from trimodal import cli
from trimodal.cli import main
from trimodal.config import (
    ContrastiveConfig,
    DataConfig,
    ObjectivesConfig,
    RunConfig,
    dump_config,
)


@pytest.fixture(autouse=True)
def only_this_command(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("runs", "trimodal.cli.runs:COMMAND", "trimodal.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry])


def write_run(folder: Path) -> str:
    folder.mkdir()
    data = DataConfig(train=("train.jsonl",), tokenizer="text.model")
    objectives = ObjectivesConfig(contrastive=ContrastiveConfig())
    config = RunConfig(run_dir=str(folder), data=data, objectives=objectives)
    dump_config(config, folder / "config.yaml")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    return str(folder)


def test_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / name) for name in ("one", "two", "three")]
    out = tmp_path / "out.html"
    assert main(["runs", "compare", *runs, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 3 runs\n"
    assert "<title>3 runs</title>" in out.read_text(encoding="utf-8")


def test_one_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "compare", write_run(tmp_path / "one")]) == 64
    assert "two runs or more can be compared" in capsys.readouterr().err
