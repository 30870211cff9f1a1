import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trimodal.data import read_manifest
from trimodal.errors import ConfigError, DataError, NumericError, StorageError
from trimodal.schema import parse, to_dict
from trimodal.testing import assert_close
from trimodal.tokenizers import Tokenizers, load_speech_tokenizer
from trimodal.training.checkpoint import load_newest, save
from trimodal.training.run import RunDirectory
from trimodal.training.tokenizers import trainer
from trimodal.training.tokenizers.config import (
    AnyTraining,
    SpeechTokenizerTraining,
    VisionTokenizerTraining,
)
from trimodal.training.tokenizers.task import Outcome
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
    tree = to_dict(_with(config, max_steps=30, checkpoint_every=30, learning_rate=0.01))
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


class _Broken:
    """Steps, counted from 1, of which something is not finite."""

    def __init__(self, patch: pytest.MonkeyPatch, what: str, *steps: int) -> None:
        compute = Trainer._gradients

        def broken(self: Trainer) -> trainer._Computed:
            with pytest.MonkeyPatch.context() as now:
                if self.step + 1 in steps:
                    _break(self, now, what)
                return compute(self)

        patch.setattr(Trainer, "_gradients", broken)


def _break(made: Trainer, now: pytest.MonkeyPatch, what: str) -> None:
    task, nan = made.task, float("nan")
    outcomes = task.outcomes

    def spoiled(step: int) -> Iterator[Outcome]:
        for outcome in outcomes(step):
            if what == "loss":
                # what a quantiser makes of latents that are no numbers
                codes = torch.full((3,), -(2**63))
                yield dataclasses.replace(outcome, loss=outcome.loss * nan, codes=codes)
            elif what == "real":
                yield dataclasses.replace(outcome, real=outcome.real * nan)
            else:
                yield outcome

    now.setattr(task, "outcomes", spoiled)
    if what == "gradient":
        clip = nn.utils.clip_grad_norm_

        def clipped(parameters: Any, norm: float) -> Tensor:
            parameters = list(parameters)
            parameters[0].grad.view(-1)[0] = nan
            return clip(parameters, norm)

        now.setattr(nn.utils, "clip_grad_norm_", clipped)


def _state(made: Trainer) -> dict[str, Tensor]:
    tensors = made._tensors()
    return {f"{a}/{b}": x.clone() for a, named in tensors.items() for b, x in named.items()}


@pytest.mark.parametrize("what", ["loss", "gradient", "real"])
def test_nothing_is_taken_of_a_step_that_is_not_finite(
    tmp_path: Path,
    manifest: Path,
    config: AnyTraining,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its loss, its gradient, or what the discriminator alone is shown."""
    _Broken(monkeypatch, what, 3)
    step, kept = Trainer.train_step, list[bool]()

    def noted(self: Trainer) -> dict[str, float]:
        before = _state(self)
        metrics = step(self)
        after = _state(self)
        kept.append(before.keys() == after.keys() and all(after[k].equal(before[k]) for k in after))
        return metrics

    monkeypatch.setattr(Trainer, "train_step", noted)
    assert train(config, [manifest], tmp_path / "out")
    assert kept == [False, False, True, False, False, False]
    assert "trimodal: step 3 is left out: loss " in capsys.readouterr().err
    lines = _steps(tmp_path / "out")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["gradient_norm"] is None for line in lines] == [*[False] * 2, True, *[False] * 3]
    assert (lines[2]["loss"] is None) == (what != "gradient")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert all(bool(x.isfinite().all()) for x in weights.values())


def test_three_in_a_row_return_to_the_checkpoint(
    tmp_path: Path,
    manifest: Path,
    config: AnyTraining,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _Broken(monkeypatch, "gradient", 4, 5, 6)
    assert train(_with(config, max_steps=8, checkpoint_every=3), [manifest], tmp_path / "out")
    told = capsys.readouterr().err
    assert "the weights are those of step 3 again; no data are repeated" in told
    assert [line["loss"] is None for line in _steps(tmp_path / "out")].count(True) == 0
    assert len(_steps(tmp_path / "out")) == 8


def test_what_never_was_finite_ends_and_leaves_nothing(
    tmp_path: Path, manifest: Path, speech_config: SpeechTokenizerTraining
) -> None:
    config = dataclasses.replace(speech_config, squared_weight=1e38)
    with pytest.raises(NumericError, match=r"^step 3: the loss is .* there is no checkpoint to go"):
        train(_with(config, checkpoint_every=6), [manifest], tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("every", [1, 2, 3])
def test_what_is_no_longer_finite_ends_and_the_last_good_checkpoint_stays(
    tmp_path: Path,
    manifest: Path,
    vision_config: VisionTokenizerTraining,
    every: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _Broken(monkeypatch, "loss", *range(4, 40))
    out = tmp_path / "out"
    with pytest.raises(NumericError, match="not finite again after a return to the last") as ended:
        train(_with(vision_config, max_steps=14, checkpoint_every=every), [manifest], out)
    assert ended.value.exit_code == 76
    assert len(_steps(out)) < 12
    assert not (out / "model.safetensors").exists()
    checkpoint = load_newest(out / "checkpoints")
    assert checkpoint is not None
    for named in checkpoint.tensors.values():
        assert all(bool(named[name].isfinite().all()) for name in named)
    monkeypatch.undo()
    assert train(_with(vision_config, max_steps=14, checkpoint_every=every), [manifest], out)


@pytest.mark.parametrize(("step", "saved"), [(3, 2), (6, 4)])
@pytest.mark.parametrize("where", ["module", "judge"])
def test_what_is_not_finite_is_not_saved(
    tmp_path: Path,
    manifest: Path,
    vision_config: VisionTokenizerTraining,
    where: str,
    step: int,
    saved: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither in a checkpoint nor as what is trained."""
    taken = Trainer.train_step

    def spoiled(self: Trainer) -> dict[str, float]:
        metrics = taken(self)
        if self.step + 1 == step:
            held = self._tensors()[where]
            last = [x for x in held.values() if x.is_floating_point() and x.numel()][-1]
            last.view(-1)[-1] = float("inf")
        return metrics

    monkeypatch.setattr(Trainer, "train_step", spoiled)
    out = tmp_path / "out"
    message = rf"^what would be saved is not finite: {where}.*; the last checkpoint is as it was$"
    with pytest.raises(NumericError, match=message):
        train(vision_config, [manifest], out)
    assert not (out / "model.safetensors").exists()
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{saved:08d}"]


def test_the_guard_goes_on_where_it_was(
    tmp_path: Path,
    manifest: Path,
    vision_config: VisionTokenizerTraining,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or a run that is killed again and again would never end."""
    step = Trainer.train_step

    def killed(self: Trainer) -> dict[str, float]:
        if self.step == 5:
            raise KilledError
        return step(self)

    config = _with(vision_config, max_steps=9, checkpoint_every=5)
    _Broken(monkeypatch, "loss", 4, 5, 6)
    monkeypatch.setattr(Trainer, "train_step", killed)
    with pytest.raises(KilledError):
        train(config, [manifest], tmp_path)
    monkeypatch.setattr(Trainer, "train_step", step)
    with RunDirectory(tmp_path) as run:
        made = Trainer(build_task(config, read_manifest(manifest)), run)
        assert made.guard.state()["in_a_row"] == 2


def test_resumed_training_reports_the_codes_as_an_uninterrupted_one(
    tmp_path: Path,
    manifest: Path,
    vision_config: VisionTokenizerTraining,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With codes that no picture asks for; weights are the same to the last bit as well."""
    monkeypatch.setattr(trainer, "WINDOW", 4)
    step = Trainer.train_step

    def killed(self: Trainer) -> dict[str, float]:
        if self.step == 5:
            raise KilledError
        return step(self)

    config = _with(vision_config, max_steps=8, checkpoint_every=3)
    assert train(config, [manifest], tmp_path / "whole")
    monkeypatch.setattr(Trainer, "train_step", killed)
    with pytest.raises(KilledError):
        train(config, [manifest], tmp_path / "broken")
    monkeypatch.setattr(Trainer, "train_step", step)
    assert train(config, [manifest], tmp_path / "broken")
    whole, broken = (_steps(tmp_path / name) for name in ("whole", "broken"))
    assert all(0 < line["usage"] < 1 for line in whole)
    assert broken == whole
    one, two = (tmp_path / name / "model.safetensors" for name in ("whole", "broken"))
    assert one.read_bytes() == two.read_bytes()


def test_a_checkpoint_of_before_has_no_codes_and_no_guard(
    tmp_path: Path, manifest: Path, vision_config: VisionTokenizerTraining
) -> None:
    rows = read_manifest(manifest)
    with RunDirectory(tmp_path) as run:
        made = Trainer(build_task(vision_config, rows), run)
        made.step = 2
        save(run.checkpoints, 2, made._tensors(), {}, keep=1)
        later = Trainer(build_task(vision_config, rows), run)
    assert later.step == 2
    assert not later._recent


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
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read"):
        train(vision_config, [tmp_path / "none.jsonl"], tmp_path / "out")
