import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from trimodal.config import CausalConfig, MatchingConfig, RunConfig
from trimodal.errors import ConfigError, StorageError
from trimodal.training import trackers as module
from trimodal.training.run import RunDirectory
from trimodal.training.sampling import Made
from trimodal.training.trackers import Trackers, plain_name
from trimodal.training.trainer import train

INPUTS = ("image", "text", "speech")


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


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("validation/image->text", "validation/image-to-text"),
        ("objectives.causal.conditions.image+text", "objectives.causal.conditions.image-and-text"),
        ("embedding/modality_gap/image-text", "embedding/modality_gap/image-text"),
    ],
)
def test_a_name_is_plain(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_a_run_names_nothing_that_mlflow_refuses(
    everything: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "mlflow", Noted)
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    objectives = replace(
        everything.objectives,
        causal=CausalConfig(conditions={"image+text": 1.0, "image+text+speech": 1.0}),
        matching=MatchingConfig(rate=1.0),
    )
    data = replace(everything.data, validation=everything.data.train[0], tolerance=0.1)
    watched = with_trackers(replace(everything, objectives=objectives, data=data), "mlflow")
    training = replace(watched.training, validate_every=1, sample_every=1, max_steps=1)
    train(replace(watched, training=training))
    _, _, configured, logged, _ = Noted.calls
    assert "objectives.causal.conditions.image-and-text" in configured[1]
    scored = [f"validation/{a}-to-{b}" for a in INPUTS for b in INPUTS if a != b]
    assert {*scored, "train/skipped", "codes/usage/speech", "train/matching"} <= set(logged[1])
    for name in (*configured[1], *logged[1]):
        assert re.fullmatch(r"[/\w.\- :]*", name), name


def test_a_service_that_is_not_installed_is_named(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.trackers: mlflow needs `pip install mlflow`"):
        Trackers(RunDirectory(tmp_path), with_trackers(config, "mlflow"), 0)


def stand_in(patch: pytest.MonkeyPatch, service: type[Noted]) -> None:
    patch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", service)
    patch.setattr(module, "find_spec", lambda name: name)


@pytest.mark.parametrize("stage", ["__init__", "start", "store_init_configuration"])
def test_a_service_that_cannot_be_started_is_named(
    config: RunConfig, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("api_key not configured\nuse wandb login")

    stand_in(monkeypatch, type("Refusing", (Noted,), {stage: refuse}))
    said = r"training\.trackers: wandb cannot be started: api_key not configured$"
    with pytest.raises(ConfigError, match=said):
        Trackers(RunDirectory(tmp_path), with_trackers(config, "wandb"), 0)


@pytest.mark.parametrize("stage", ["log", "log_images", "finish"])
def test_a_service_that_is_lost_during_a_run_is_left_alone(
    config: RunConfig,
    tmp_path: Path,
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[str] = []

    def lose(*_: object, **__: object) -> None:
        asked.append(stage)
        raise ConnectionError("no route to host")

    stand_in(monkeypatch, type("Lost", (Noted,), {stage: lose}))
    picture = Made("0-text-image", "image", np.zeros((4, 4, 3), np.uint8))
    with Trackers(RunDirectory(tmp_path), with_trackers(config, "wandb"), 0) as trackers:
        for step in (1, 2):
            trackers.log({"train/loss": 0.5}, step)
            trackers.show(picture, step, 16_000)
    assert asked == [stage]
    assert capsys.readouterr().err == (
        "trimodal: wandb gets no more numbers of this run: no route to host; all are in "
        "metrics.jsonl\n"
    )


def test_tensorboard_without_room_is_named(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = with_trackers(config, "tensorboard")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/tensorboard cannot be written: "):
        Trackers(RunDirectory(tmp_path / "file"), chosen, 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Trackers(RunDirectory(tmp_path), chosen, 0) as trackers:
        monkeypatch.setattr(trackers._writer, "add_scalar", full)
        with pytest.raises(StorageError, match="tensorboard cannot be written: No space left"):
            trackers.log({"train/loss": 0.5}, 1)


def test_without_trackers_nothing_is_written(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with Trackers(RunDirectory(tmp_path / "run"), config, 0) as trackers:
        trackers.log({"train/loss": 0.5}, 1)
    assert list((tmp_path / "run").iterdir()) == []
