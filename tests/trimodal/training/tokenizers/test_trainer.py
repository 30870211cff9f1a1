import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trimodal.data import read_manifest
from trimodal.errors import ConfigError, NumericError, StorageError
from trimodal.schema import parse, to_dict
from trimodal.testing import assert_close
from trimodal.tokenizers import Tokenizers, load_speech_tokenizer
from trimodal.training.run import RunDirectory
from trimodal.training.tokenizers import trainer
from trimodal.training.tokenizers.config import (
    AnyTraining,
    SpeechTokenizerTraining,
    VisionTokenizerTraining,
)
from trimodal.training.tokenizers.trainer import Trainer, build_task, train

KINDS = {"vision": "vision_tokenizer", "speech": "speech_tokenizer", "vocoder": "vocoder"}


class KilledError(Exception):
    """Stands for a process that ends in the middle of a step."""


@pytest.fixture(params=["vision", "speech", "vocoder"])
def config(request: pytest.FixtureRequest) -> AnyTraining:
    return request.getfixturevalue(f"{request.param}_config")


def _steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _with(config: AnyTraining, **changes: Any) -> AnyTraining:
    tree = to_dict(config)
    for key, value in changes.items():
        tree["training"][key] = value
    return parse(type(config), tree, "")


def test_interrupted_training_ends_in_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, manifest: Path, config: AnyTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train(config, [manifest], whole)
    step = Trainer.train_step

    def killed(self: Trainer) -> dict[str, float]:
        if self.step == 3:
            raise KilledError
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", killed)
    with pytest.raises(KilledError):
        train(config, [manifest], broken)
    monkeypatch.setattr(Trainer, "train_step", step)
    assert len(_steps(broken)) == 3  # the checkpoint is of step 2
    assert train(config, [manifest], broken)
    expected = load_file(whole / "model.safetensors")
    for name, weight in load_file(broken / "model.safetensors").items():
        assert_close(weight, expected[name], "exact")
    assert (broken / "config.json").read_text() == (whole / "config.json").read_text()
    losses = [[line["loss"] for line in _steps(folder)] for folder in (whole, broken)]
    assert losses[0] == losses[1]
    assert [line["step"] for line in _steps(broken)] == [1, 2, 3, 4, 5, 6]
    assert not (broken / "checkpoints").exists()


def test_what_is_finished_stays_and_another_configuration_is_refused(
    tmp_path: Path, manifest: Path, config: AnyTraining
) -> None:
    out = tmp_path / "out"
    assert train(config, [manifest], out)
    written = (out / "model.safetensors").stat().st_mtime_ns
    assert not train(_with(config, checkpoint_every=5), [manifest], out)
    assert (out / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match=r"training\.learning_rate was 0\.003, is 0\.001"):
        train(_with(config, learning_rate=0.001), [manifest], out)
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(ConfigError, match="data was "):
        train(config, [manifest], out)


def test_a_bundle_reads_what_was_trained_and_metrics_say_how(
    tmp_path: Path,
    manifest: Path,
    config: AnyTraining,
    capsys: pytest.CaptureFixture[str],
) -> None:
    what = type(config).__name__.split("T")[0].lower()
    train(config, [manifest], tmp_path / "all" / KINDS[what])
    assert list(Tokenizers.load(tmp_path / "all").parts) == [KINDS[what]]
    lines = _steps(tmp_path / "all" / KINDS[what])
    assert len(lines) == 6
    codes = {"usage", "perplexity"} if what != "vocoder" else set()
    shown = {"vision": "psnr", "speech": "error", "vocoder": "mel"}[what]
    assert {"step", "loss", "learning_rate", shown, *codes} <= set(lines[0])
    assert "adversarial" not in lines[0]
    assert {"adversarial", "discriminator"} <= set(lines[1])
    assert f"step 6/6  loss {lines[-1]['loss']:.3g}" in capsys.readouterr().out


def test_the_loss_falls(tmp_path: Path, manifest: Path, config: AnyTraining) -> None:
    tree = to_dict(_with(config, max_steps=40, learning_rate=0.01))
    tree["adversarial"]["weight"] = 0.0
    train(parse(type(config), tree, ""), [manifest], tmp_path / "out")
    losses = [line["loss"] for line in _steps(tmp_path / "out")]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_batches_of_several_sizes_are_one_step(
    tmp_path: Path, manifest: Path, vision_config: VisionTokenizerTraining
) -> None:
    """The gradient of a step is the mean over its pictures, however they were grouped."""
    task = build_task(dataclasses.replace(vision_config, crop=16), read_manifest(manifest))
    outcomes = list(task.outcomes(0))
    assert len(outcomes) > 1
    weight = task.module.decoder.head.weight
    mean = torch.zeros_like(weight)
    for outcome in outcomes:
        [gradient] = torch.autograd.grad(outcome.loss, weight)
        mean += gradient * len(outcome.real) / vision_config.training.batch_size
    Trainer(task, RunDirectory(tmp_path)).train_step()
    # up to clipping
    assert_close(weight.grad / weight.grad.norm(), mean / mean.norm(), "packed-vs-alone-fp32")


def test_a_loss_that_is_not_finite_ends_training(
    tmp_path: Path, manifest: Path, speech_config: SpeechTokenizerTraining
) -> None:
    config = dataclasses.replace(speech_config, squared_weight=1e38)
    with pytest.raises(NumericError, match="step 1: the loss or its gradient is not finite"):
        train(config, [manifest], tmp_path / "out")


def test_the_speech_tokenizer_knows_the_level_of_its_corpus(
    tmp_path: Path, manifest: Path, speech_config: SpeechTokenizerTraining
) -> None:
    train(speech_config, [manifest], tmp_path / "out")
    config = load_speech_tokenizer(tmp_path / "out").config
    assert config.mean != speech_config.tokenizer.mean
    assert -20 < config.mean < 0 < config.std < 10


def test_a_folder_of_something_else_is_not_written_over(
    tmp_path: Path, manifest: Path, vision_config: VisionTokenizerTraining
) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds a config\.json that was not trained here"):
        train(vision_config, [manifest], tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / trainer.IDENTITY).write_text("{")
    with pytest.raises(StorageError, match=r"training\.json is damaged"):
        train(vision_config, [manifest], tmp_path / "new")


def test_a_missing_manifest_is_named(
    tmp_path: Path, vision_config: VisionTokenizerTraining
) -> None:
    with pytest.raises(StorageError, match=r"none\.jsonl cannot be read"):
        train(vision_config, [tmp_path / "none.jsonl"], tmp_path / "out")
