from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from trimodal.config import RunConfig
from trimodal.errors import ConfigError
from trimodal.training import trackers as module
from trimodal.training.run import RunDirectory
from trimodal.training.trackers import Trackers


def with_trackers(config: RunConfig, *names: Any) -> RunConfig:
    return replace(config, training=replace(config.training, trackers=names))


class Noted(GeneralTracker):
    """Stands for a service: notes what accelerate's trackers would send."""

    name = "noted"
    requires_logging_directory = False
    calls: list[tuple[str, Any]]

    def __init__(self, run_name: str) -> None:
        super().__init__(_blank=True)
        Noted.calls = [("named", run_name)]

    def start(self) -> None:
        self.calls.append(("started", None))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.calls.append(("configured", values))

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.calls.append((f"step {step}", values))

    def finish(self) -> None:
        self.calls.append(("finished", None))


def test_tensorboard_gets_the_numbers(config: RunConfig, tmp_path: Path) -> None:
    with Trackers(RunDirectory(tmp_path), with_trackers(config, "tensorboard"), 0) as trackers:
        trackers.log({"train/loss": 0.5}, 1)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_service_gets_configuration_and_numbers(
    config: RunConfig, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, name, Noted)
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    with Trackers(RunDirectory(tmp_path / "mine"), with_trackers(config, name), 0) as trackers:
        trackers.log({"train/loss": 0.5}, 7)
    named, started, configured, logged, finished = Noted.calls
    assert named == ("named", "mine")
    assert started[0] == "started"
    assert configured[1]["training.batch_size"] == 8
    assert all(isinstance(v, bool | int | float | str) for v in configured[1].values())
    assert logged == ("step 7", {"train/loss": 0.5})
    assert finished[0] == "finished"


def test_a_service_that_is_not_installed_is_named(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.trackers: mlflow needs `pip install mlflow`"):
        Trackers(RunDirectory(tmp_path), with_trackers(config, "mlflow"), 0)


def test_without_trackers_nothing_is_written(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with Trackers(RunDirectory(tmp_path / "run"), config, 0) as trackers:
        trackers.log({"train/loss": 0.5}, 1)
    assert list((tmp_path / "run").iterdir()) == []
