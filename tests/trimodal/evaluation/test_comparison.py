import json
from dataclasses import replace
from pathlib import Path

import pytest

from trimodal.config import (
    ContrastiveConfig,
    DataConfig,
    ObjectivesConfig,
    RunConfig,
    TrainingConfig,
    dump_config,
)
from trimodal.errors import ConfigError, StorageError
from trimodal.evaluation.comparison import compare_runs, differing


def write_run(folder: Path, rate: float, losses: list[float], **more: float) -> Path:
    folder.mkdir(parents=True)
    data = DataConfig(train=("train.jsonl",), tokenizer="text.model")
    objectives = ObjectivesConfig(contrastive=ContrastiveConfig())
    config = RunConfig(run_dir=str(folder), data=data, objectives=objectives)
    config = replace(config, training=TrainingConfig(learning_rate=rate))
    dump_config(config, folder / "config.yaml")
    lines = [{"step": i + 1, "loss": loss, **more} for i, loss in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    first = write_run(tmp_path / "a" / "run", 1e-3, [3.0, 2.0, 1.5])
    second = write_run(tmp_path / "b" / "run", 2e-3, [3.0, 1.0], only_here=7.0)
    return [first, second]


def test_what_differs_and_how_each_ended_is_there(runs: list[Path], tmp_path: Path) -> None:
    compare_runs(runs, tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "<title>a/run and b/run</title>" in page
    table = page[page.index("Settings that differ") : page.index("At the end")]
    assert "training.learning_rate" in table
    assert "<td>0.001</td><td>0.002</td>" in table
    assert "training.batch_size" not in table
    ends = page[page.index("At the end") :]
    assert '<th scope="row">loss</th><td>1.5</td><td>1</td>' in ends
    assert '<th scope="row">steps</th><td>3</td><td>2</td>' in ends
    assert '<th scope="row">only_here</th><td>–</td><td>7</td>' in ends


def test_each_number_has_a_figure_that_says_its_lines(runs: list[Path], tmp_path: Path) -> None:
    compare_runs(runs, tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert page.count("<figure") == page.count("</svg>") == 2
    assert "a/run: loss: 3 at step 1, 1.5 at step 3" in page
    assert "var(--c0)" in page
    assert "var(--c1)" in page
    assert "src=" not in page, "it needs nothing but itself"


def test_only_differences_are_told() -> None:
    trees = {"a": {"x": 1, "y": (1, 2)}, "b": {"x": 1, "y": (1, 3)}, "c": {"x": 1}}
    assert differing(trees) == [["y", "(1, 2)", "(1, 3)", "–"]]


def test_what_is_no_run_is_named(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere is not a run directory: it has no metrics"):
        compare_runs([runs[0], tmp_path / "nowhere"], tmp_path / "out.html")
    (runs[1] / "config.yaml").unlink()
    with pytest.raises(StorageError, match=r"run is not a run directory: it has no config\.yaml"):
        compare_runs(runs, tmp_path / "out.html")
    for folders, said in (
        (runs[:1], "two runs or more"),
        ([runs[0], runs[0]], "a run is named twice"),
    ):
        with pytest.raises(ConfigError, match=said):
            compare_runs(folders, tmp_path / "out.html")
