import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import trimodal
from trimodal.config import AverageConfig, RunConfig
from trimodal.errors import ConfigError, StorageError
from trimodal.models import TrimodalModel
from trimodal.testing import tiny_model
from trimodal.training import exporting
from trimodal.training.exporting import export, write_model
from trimodal.training.run import RunDirectory
from trimodal.training.trainer import train

Change = Callable[[RunConfig, Path], RunConfig]


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    return replace(config, training=replace(config.training, **changes))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def plain(config: RunConfig, _: Path) -> RunConfig:
    return config


def averaged(config: RunConfig, _: Path) -> RunConfig:
    return with_training(config, ema=AverageConfig(decay=0.9))


def started(config: RunConfig, folder: Path) -> RunConfig:
    first = with_training(replace(config, run_dir=str(folder / "first")), max_steps=1)
    train(first)
    return with_training(config, init_from=str(folder / "first" / "model"))


@pytest.mark.parametrize("change", [plain, averaged, started])
def test_the_newest_checkpoint_gives_what_the_run_ended_with(
    config: RunConfig, tmp_path: Path, change: Change
) -> None:
    train(change(config, tmp_path))
    shutil.rmtree(tmp_path / "first", ignore_errors=True)  # what it began with is not read again
    run = Path(config.run_dir)
    expected = contents(run / "model")
    assert export(run, out=tmp_path / "far" / "out") == 6
    assert contents(tmp_path / "far" / "out") == expected
    shutil.rmtree(run / "model")
    assert export(run) == 6
    assert contents(run / "model") == expected
    names = {path.name for path in run.iterdir()}
    assert names == {".lock", "checkpoints", "config.yaml", "metrics.jsonl", "model"}


def test_a_step_gives_what_a_run_of_so_many_would_end_with(
    everything: RunConfig, tmp_path: Path
) -> None:
    """At a constant rate, which the length of a run does not change."""
    rate = everything.training.learning_rate
    constant = with_training(everything, warmup_steps=0, min_learning_rate=rate)
    config = averaged(constant, tmp_path)
    short = with_training(replace(config, run_dir=str(tmp_path / "short")), max_steps=4)
    train(config)
    train(short)
    expected = contents(Path(short.run_dir) / "model")
    assert contents(Path(config.run_dir) / "model") != expected
    assert export(Path(config.run_dir), step=4) == 4
    assert contents(Path(config.run_dir) / "model") == expected


def test_a_run_that_goes_on_is_not_disturbed(finished: RunConfig, tmp_path: Path) -> None:
    run = Path(finished.run_dir)
    before = contents(run)
    with RunDirectory(run):
        with pytest.raises(ConfigError, match="is in use by another process"):
            export(run)
        export(run, step=4, out=tmp_path / "out")
    assert contents(run) == before
    assert trimodal.load(tmp_path / "out").embed(text=["red"])["text"].shape == (1, 16)


def test_what_cannot_be_exported_is_said(config: RunConfig, tmp_path: Path) -> None:
    run = Path(config.run_dir)
    with pytest.raises(ConfigError, match=r"run/config\.yaml: cannot be read"):
        export(run)
    assert not run.exists(), "no folder is made of a slip of the pen"
    train(config)
    with pytest.raises(StorageError, match="no checkpoint of step 3; it has: 4, 6"):
        export(run, step=3)
    with pytest.raises(ConfigError, match="run is not empty"):
        export(run, out=run)
    with pytest.raises(ConfigError, match=r"text\.model is a file, where a folder is to be"):
        export(run, out=Path(config.data.tokenizer))
    tokenizer = Path(config.data.tokenizer)
    shutil.copy(Path(config.data.train[0]), tokenizer)
    with pytest.raises((ConfigError, StorageError)):
        export(run)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(StorageError, match="checkpoints holds no checkpoint"):
        export(run)


def test_other_data_are_refused_as_a_resume_would(config: RunConfig) -> None:
    train(with_training(config, max_steps=1))
    manifest = Path(config.data.train[0])
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    with pytest.raises(ConfigError, match="data was "):
        export(Path(config.run_dir))


def test_a_former_model_is_replaced_and_all_is_on_the_disk_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    inner = exporting.sync
    monkeypatch.setattr(exporting, "sync", lambda path: (synced.append(path.name), inner(path)))
    (tmp_path / ".new-model").mkdir()
    (tmp_path / ".new-model" / "of-a-kill").write_text("")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("")
    write_model(tiny_model(), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    written = {path.name for path in (tmp_path / "model").rglob("*")}
    assert "old" not in written
    assert "of-a-kill" not in written
    assert written == {*synced[:-2]}
    assert synced[-2:] == [".new-model", tmp_path.name]


def test_a_disk_that_is_full_leaves_the_former_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    write_model(model, tmp_path / "model")
    before = contents(tmp_path / "model")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrimodalModel, "save_pretrained", full)
    with pytest.raises(StorageError, match=r"model cannot be written: .*No space left"):
        write_model(model, tmp_path / "model")
    assert contents(tmp_path / "model") == before
