import shutil
from pathlib import Path

import pytest

from trimodal.config import load_config
from trimodal.errors import ConfigError, StorageError
from trimodal.evaluation.run import Run, read_results, read_run


def test_metrics_are_series_of_finite_numbers(run_dir: Path) -> None:
    run = read_run(run_dir)
    assert list(run.series) == ["loss", "masked/text", "seconds", "mfu", "tokens_per_second"]
    assert run.series["loss"].steps.tolist() == [1, 2]  # the third is not a number
    assert run.series["masked/text"].values.tolist() == [2.0, 1.0]
    assert run.steps == 3
    assert run.total("seconds") == 12
    assert run.typical("mfu") == 0.35
    assert run.total("energy") is run.typical("energy") is None


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "model"])
def test_what_is_missing_is_named(run_dir: Path, name: str) -> None:
    (run_dir / name).unlink()
    with pytest.raises(StorageError, match=f"is not a finished run: it has no {name}"):
        read_run(run_dir)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no such folder"):
        read_run(tmp_path / "nowhere")


DEEP = '{"a": ' * 100_000 + "1" + "}" * 100_000


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", '{"loss": 1}', '{"step": "x"}', "7", '{"step": 1e400}', '{"step": 1e30}', DEEP],
)
def test_a_damaged_line_is_named(run_dir: Path, line: str) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(StorageError, match=r"metrics.jsonl:4: not a JSON object with a step"):
        read_run(run_dir)


@pytest.mark.parametrize(
    "torn", ['{"step": 4, "lo', '{"step": 4, "loss": "\xe4', '{"step": 1e400}']
)
def test_half_a_line_at_the_end_is_left_out(run_dir: Path, torn: str) -> None:
    with (run_dir / "metrics.jsonl").open("ab") as file:
        file.write(torn.encode("latin-1"))
    assert read_run(run_dir).steps == 3


def test_a_whole_line_without_an_end_is_taken(run_dir: Path) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": 4, "loss": 1, "large": {"9" * 400}, "flag": true}}')
    run = read_run(run_dir)
    assert run.series["loss"].steps.tolist() == [1, 2, 4]
    assert {"large", "flag"}.isdisjoint(run.series)


def test_the_manifest_is_the_given_one_else_test_else_validation(run_dir: Path) -> None:
    run = read_run(run_dir)
    path = run_dir / "config.yaml"
    assert run.manifest(Path("given.jsonl")) == "given.jsonl"
    assert run.manifest(None) == run.config.data.test
    remote = load_config(path, ["data.test=s3://bucket/test"])
    assert Run(run_dir, remote, {}).manifest(None) == "s3://bucket/test"
    validation = load_config(path, ["data.test=null", "data.validation=v.jsonl"])
    assert Run(run_dir, validation, {}).manifest(None) == "v.jsonl"
    with pytest.raises(ConfigError, match=r"neither data.test nor data.validation; give --data"):
        Run(run_dir, load_config(path, ["data.test=null"]), {}).manifest(None)
    assert Run(run_dir, validation, {}).steps == 0


def test_results_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert read_results(path) is None
    path.write_text("{")
    with pytest.raises(StorageError, match=r"results.json cannot be read as JSON"):
        read_results(path)
    path.write_text('{"manifest": "x"}')
    with pytest.raises(
        StorageError, match="not what `trimodal eval --json` writes: it has no rows"
    ):
        read_results(path)
    shutil.rmtree(tmp_path)
    assert read_results(path) is None
