import itertools
import json
import math
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

import trimodal
from trimodal.batch import Batch, Modality
from trimodal.config import AverageConfig, ContrastiveConfig, RunConfig, TransformerConfig
from trimodal.data import dataset
from trimodal.errors import (
    ConfigError,
    DataError,
    NumericError,
    PathError,
    StoppedError,
    StorageError,
)
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.processors.text import train_tokenizer
from trimodal.testing import assert_close, tiny_model
from trimodal.training import checkpoint, trainer
from trimodal.training.gradients import StepGradients
from trimodal.training.parts import Part
from trimodal.training.trainer import Trainer, train


def lines(config: RunConfig) -> list[dict]:
    text = (Path(config.run_dir) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def losses(config: RunConfig) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in lines(config)]


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    return replace(config, training=replace(config.training, **changes))


def test_a_run_leaves_everything_that_is_promised(trained: RunConfig) -> None:
    run = Path(trained.run_dir)
    assert {p.name for p in run.iterdir()} == {
        ".lock", "checkpoints", "config.yaml", "metrics.jsonl", "model"
    }  # fmt: skip
    assert [line["step"] for line in lines(trained)] == [1, 2, 3, 4, 5, 6]
    assert {
        "loss",
        "contrastive",
        "masked_vision",
        "learning_rate",
        "tokens_per_second",
        "mfu",
    } <= set(lines(trained)[0])
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [
        "step-00000004",
        "step-00000006",
    ]
    vectors = trimodal.load(run / "model").embed(text=["a red square"])
    assert vectors["text"].shape == (1, 16)


def test_gradients_of_components_and_padding_are_reported(config: RunConfig) -> None:
    train(with_training(config, trackers=("tensorboard",), max_steps=2))
    names = [f"grad_norm/{name}" for name in ("vision", "text", "speech", "trunk", "heads")]
    for line in lines(config):
        each = [line[name] for name in names]
        assert all(x > 0 for x in each)
        assert_close(math.sqrt(sum(x * x for x in each)), line["grad_norm"], "fp32")
        assert line["padding"] == 0.0
    (events,) = (Path(config.run_dir) / "tensorboard").iterdir()
    for name in (*names, "train/padding"):
        assert name.encode() in events.read_bytes()


def test_what_a_step_computes_in_vain_is_its_padding(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One token in the place of a modality that a micro-batch lacks."""
    taken, expected = Trainer._train_step, list[float]()

    def noted(self: Trainer, batches: Sequence[Batch], stop: Any) -> Any:
        lacking = sum(len(Modality) - len(b.media) + (b.views is None) for b in batches)
        expected.append(lacking / (lacking + sum(batch.num_tokens for batch in batches)))
        return taken(self, batches, stop)

    monkeypatch.setattr(Trainer, "_train_step", noted)
    train(with_training(config, token_budget=60, max_steps=2))
    assert min(expected) > 0
    assert_close([line["padding"] for line in lines(config)], expected, "fp32")


def test_a_resumed_run_equals_an_uninterrupted_one(trained: RunConfig, finished: RunConfig) -> None:
    # the schedule depends on max_steps, so the interruption is the checkpoint of step 4
    run = Path(finished.run_dir)
    for path in (run / "checkpoints" / "step-00000006", run / "model"):
        shutil.rmtree(path)
    train(finished)
    assert losses(finished) == losses(trained)
    a, b = (trimodal.load(Path(c.run_dir) / "model").state_dict() for c in (trained, finished))
    assert all(a[name].equal(b[name]) for name in a)


def test_a_finished_run_is_left_as_it_is(finished: RunConfig) -> None:
    before = losses(finished)
    train(finished)
    assert losses(finished) == before


def test_another_architecture_is_refused(finished: RunConfig) -> None:
    trunk = TransformerConfig(width=32, depth=1, num_heads=2)
    other = replace(finished, model=replace(finished.model, trunk=trunk))
    with pytest.raises(ConfigError, match=r"model\.trunk\.depth was 2, is 1"):
        train(other)


def test_a_model_can_start_from_another(trained: RunConfig, config: RunConfig) -> None:
    other = with_training(config, init_from=str(Path(trained.run_dir) / "model"), max_steps=2)
    train(other)
    assert losses(other)[0][1] < losses(trained)[0][1]


def test_weights_of_another_architecture_are_no_start(
    trained: RunConfig, config: RunConfig
) -> None:
    trunk = TransformerConfig(width=32, depth=1, num_heads=2)
    other = with_training(
        replace(config, model=replace(config.model, trunk=trunk)),
        init_from=str(Path(trained.run_dir) / "model"),
    )
    with pytest.raises(ConfigError, match=r"init_from: .*/model has another architecture: model\."):
        train(other)


def test_weights_of_another_tokenizer_are_no_start(
    trained: RunConfig, config: RunConfig, tmp_path: Path
) -> None:
    tokenizer = tmp_path / "other.model"
    train_tokenizer(["quite another corpus", "完全不同"], tokenizer, vocab_size=300)
    other = with_training(
        replace(config, data=replace(config.data, tokenizer=str(tokenizer))),
        init_from=str(Path(trained.run_dir) / "model"),
    )
    with pytest.raises(ConfigError, match=r"init_from: .*/model has another tokenizer"):
        train(other)


def test_a_checkpoint_beyond_the_last_step_is_refused(finished: RunConfig) -> None:
    with pytest.raises(ConfigError, match="max_steps: 5 lie behind the checkpoint of step 6"):
        train(with_training(finished, max_steps=5))


def test_bf16_learns_about_what_fp32_does(config: RunConfig, tmp_path: Path) -> None:
    config = with_training(config, learning_rate=1e-3)  # the highest of any file in configs
    train(config)
    half = replace(config, run_dir=str(tmp_path / "half"))
    AcceleratorState._reset_state()  # a process has one precision
    train(with_training(half, precision="bf16"))
    AcceleratorState._reset_state()
    assert_close([x for _, x in losses(half)], [x for _, x in losses(config)], "bf16")
    assert losses(half) != losses(config)


def test_the_sigmoid_loss_starts_where_its_paper_does(config: RunConfig) -> None:
    objectives = replace(config.objectives, contrastive=ContrastiveConfig(loss="sigmoid"))
    train(with_training(replace(config, objectives=objectives), max_steps=12))
    assert_close(lines(config)[0]["logit_scale"], 10.0, "bf16")
    found = [line["contrastive"] for line in lines(config)]
    assert sum(found[-5:]) < 0.9 * sum(found[:5])


def test_it_learns(config: RunConfig) -> None:
    train(with_training(config, max_steps=25, checkpoint_every=25))
    found = [loss for _, loss in losses(config)]
    assert sum(found[-5:]) < 0.8 * sum(found[:5])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"train": ("missing.jsonl",)}, DataError, "missing.jsonl cannot be read"),
        ({"tokenizer": "missing.model"}, PathError, "missing.model cannot be read"),
    ],
)
def test_files_that_are_missing_are_named(
    config: RunConfig, change: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(replace(config, data=replace(config.data, **change)))


class _Broken:
    """Losses that are not finite at some steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
        compute, numbers = StepGradients.__call__, itertools.count(1)

        def broken(self: StepGradients, batches: Any) -> dict[str, float]:
            losses = compute(self, batches)
            if next(numbers) in steps:
                losses["loss"] = float("nan")
                for parameter in self.bare.parameters():
                    parameter.grad = torch.full_like(parameter, float("nan"))
            return losses

        monkeypatch.setattr(StepGradients, "__call__", broken)


def test_a_step_that_is_not_finite_is_left_out(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _Broken(monkeypatch, 3)
    train(config)
    found = lines(config)
    assert [line["step"] for line in found] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in found if line["loss"] is None] == [3]
    assert "step 3 is left out: loss nan" in capsys.readouterr().err
    model = trimodal.load(Path(config.run_dir) / "model")
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_three_in_a_row_return_to_the_checkpoint(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _Broken(monkeypatch, 3, 4, 5)
    train(with_training(config, checkpoint_every=2, max_steps=7))
    assert "the weights are those of step 4 again" in capsys.readouterr().err
    assert lines(config)[-1]["loss"] is not None


def test_a_run_that_never_was_finite_ends(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Broken(monkeypatch, 1, 2, 3)
    with pytest.raises(NumericError, match="there is no checkpoint to go back to"):
        train(with_training(config, checkpoint_every=6))


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_run_that_is_no_longer_finite_ends(
    config: RunConfig, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went from checkpoint to checkpoint of the same weights, and ended as if all were well."""
    _Broken(monkeypatch, *range(4, 40))
    with pytest.raises(NumericError, match="not finite again after a return to the last"):
        train(with_training(config, checkpoint_every=every, max_steps=39))
    assert len(lines(config)) < 12


def checkpoints(config: RunConfig) -> list[str]:
    return sorted(path.name for path in (Path(config.run_dir) / "checkpoints").iterdir())


@pytest.mark.parametrize("where", ["model", "optimizer", "average"])
def test_what_is_not_finite_is_not_saved(
    config: RunConfig, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Trainer._update

    def spoiled(self: Trainer, *arguments: Any) -> None:
        update(self, *arguments)
        if self.step == 3:
            parameter = next(self.bare.parameters())
            held = {
                "model": parameter.detach(),
                "optimizer": self.optimizer.state[parameter]["exp_avg_sq"],
                "average": next(iter(self.average._average.values())),
            }
            held[where].view(-1)[-1] = float("inf")

    monkeypatch.setattr(Trainer, "_update", spoiled)
    averaged = with_training(config, ema=AverageConfig(decay=0.9))
    with pytest.raises(NumericError, match=rf"would be saved is not finite: {where} \(1 tensors\)"):
        train(averaged)
    assert checkpoints(config) == ["step-00000002"]


def stop_in_step(
    patch: pytest.MonkeyPatch, number: int, kind: signal.Signals = signal.SIGTERM
) -> None:
    """Ask for an end during a step."""
    compute, numbers = StepGradients.__call__, itertools.count(1)

    def asked(self: StepGradients, batches: Any) -> dict[str, float]:
        if next(numbers) == number:
            os.kill(os.getpid(), kind)
        return compute(self, batches)

    patch.setattr(StepGradients, "__call__", asked)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_the_same_command_goes_on(
    trained: RunConfig,
    config: RunConfig,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        stop_in_step(patch, 3, number)
        with pytest.raises(StoppedError, match=f"stopped by {number.name} after step 3, which is"):
            train(config)
    assert StoppedError.exit_code == 75
    train(config)
    assert [line["trace"] for line in lines(config)] == [line["trace"] for line in lines(trained)]


def test_a_stop_does_not_wait_for_scores_and_samples(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for it kills soon after."""
    looked: list[str] = []
    monkeypatch.setattr(trainer, "validate", lambda *_: looked.append("scores") or {})
    monkeypatch.setattr(trainer, "write_samples", lambda *_: looked.append("samples") or [])
    data = replace(config.data, validation=config.data.train[0])
    watched = with_training(replace(config, data=data), validate_every=1, sample_every=1)
    stop_in_step(monkeypatch, 2)
    with pytest.raises(StoppedError, match="after step 2, which is saved"):
        train(watched)
    assert looked == ["scores", "samples"]
    assert checkpoints(config) == ["step-00000002"]


@pytest.mark.parametrize(
    ("seconds", "waits"), [(1800.0, timedelta(seconds=1860)), (0.0, timedelta(days=365))]
)
def test_ranks_wait_as_long_as_a_step_may_take(
    config: RunConfig, seconds: float, waits: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or those that do not validate give up before the one that does."""
    given: list[Any] = []

    def noted(**options: Any) -> Accelerator:
        given.extend(options["kwargs_handlers"])
        return Accelerator(**options)

    monkeypatch.setattr(trainer, "Accelerator", noted)
    train(with_training(config, watchdog_seconds=seconds, max_steps=1))
    assert [handler.timeout for handler in given] == [waits]


def test_a_run_goes_on_without_the_models_that_it_started_from(
    config: RunConfig, tmp_path: Path
) -> None:
    tiny_model().save_pretrained(tmp_path / "trained")
    started = with_training(config, start_from={"vision": str(tmp_path / "trained")})
    train(with_training(started, max_steps=2))
    shutil.rmtree(tmp_path / "trained")
    train(started)
    assert [line["step"] for line in lines(config)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("labels", [(), ("red", "blue")])
def test_a_run_goes_on_without_the_model_that_it_began_with(
    trained: RunConfig, config: RunConfig, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    """Also if it began with a head for classes, of which the configuration says nothing."""
    first = trimodal.load(Path(trained.run_dir) / "model")
    began = TrimodalModel(TrimodalConfig(first.config.architecture, labels, ("image",)))
    began.load_state_dict(first.state_dict(), strict=False)
    began.processor = first.processor
    began.save_pretrained(tmp_path / "began")
    whole = with_training(config, init_from=str(tmp_path / "began"))
    train(whole)
    parts = replace(whole, run_dir=str(tmp_path / "parts"))
    with pytest.MonkeyPatch.context() as patch:
        stop_in_step(patch, 3)
        with pytest.raises(StoppedError):
            train(parts)
    shutil.rmtree(tmp_path / "began")
    train(parts)
    for name in ("model.safetensors", "config.json"):
        one, two = (Path(c.run_dir) / "model" / name for c in (whole, parts))
        assert one.read_bytes() == two.read_bytes()
    assert trimodal.load(Path(parts.run_dir) / "model").class_labels == labels


def test_a_fresh_run_does_read_the_model_that_it_begins_with(config: RunConfig) -> None:
    with pytest.raises(StorageError, match="nowhere is not a model folder"):
        train(with_training(config, init_from="nowhere"))


def test_a_rank_that_is_gone_at_a_stop_is_not_waited_for(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ranks that each write a part the first hears of it where ranks wait for each other."""

    def gone(_: Accelerator) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(checkpoint, "WAIT_SECONDS", 15.0)
    monkeypatch.setattr(Trainer, "_part", lambda _: Part(0, 2, "launch"))
    monkeypatch.setattr(Accelerator, "wait_for_everyone", gone)
    stop_in_step(monkeypatch, 2)
    with pytest.raises(RuntimeError, match="closed by peer"):
        train(with_training(config, checkpoint_every=6))
    assert not any(name.startswith("step-") for name in checkpoints(config))


@pytest.mark.parametrize("tolerance", [0.0, 0.5])
def test_a_disk_that_fails_ends_a_run_and_skips_nothing(
    config: RunConfig, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Any) -> bytes:
        raise StorageError(f"{source} cannot be read: Input/output error")

    monkeypatch.setattr(dataset, "read_source", fail)
    with pytest.raises(StorageError, match="cannot be read: Input/output error"):
        train(tolerant(config, tolerance))
    assert not (Path(config.run_dir) / "skipped.jsonl").exists()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_medium_that_breaks_later_is_named(config: RunConfig, num_workers: int) -> None:
    manifest = Path(config.data.train[0])
    (manifest.parent / "train-3.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError) as caught:
        train(replace(config, data=replace(config.data, num_workers=num_workers)))
    assert str(caught.value) == f"{manifest}:4: image is not a PNG, JPEG or WebP picture"


def broken(config: RunConfig, *rows: int) -> None:
    folder = Path(config.data.train[0]).parent
    for row in rows:
        for path in folder.glob(f"train-{row}.*"):
            path.write_bytes(b"broken")


def tolerant(config: RunConfig, share: float) -> RunConfig:
    return replace(config, data=replace(config.data, tolerance=share))


def test_what_is_tolerated_is_listed_and_counted(everything: RunConfig, tmp_path: Path) -> None:
    broken(everything, 3, 8)
    config = tolerant(with_training(everything, checkpoint_every=2), 0.5)
    train(config)
    told = [json.loads(line) for line in (Path(config.run_dir) / "skipped.jsonl").open()]
    assert {line["cause"].split(": ")[0].rpartition(":")[2] for line in told} == {"4", "9"}
    found = lines(config)
    assert found[-1]["skipped"] == len(told) >= 4
    for line in found:
        assert line["skipped"] == sum(other["step"] <= line["step"] for other in told)
    other = replace(config, run_dir=str(tmp_path / "other"))
    with pytest.MonkeyPatch.context() as patch:
        stop_in_step(patch, 3)
        with pytest.raises(StoppedError):
            train(other)
    train(other)
    assert [line["trace"] for line in lines(other)] == [line["trace"] for line in found]
    skipped = Path(other.run_dir) / "skipped.jsonl"
    assert skipped.read_bytes() == (Path(config.run_dir) / "skipped.jsonl").read_bytes()


def test_more_than_is_tolerated_ends_the_run(config: RunConfig) -> None:
    broken(config, *range(6))
    with pytest.raises(DataError, match=r"samples cannot be used, more than data\.tolerance 0\.05"):
        train(tolerant(config, 0.05))


def test_steps_of_nothing_change_no_weights(everything: RunConfig) -> None:
    broken(everything, *range(24))
    manifest = Path(everything.data.train[0])
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    kept = [row | {"text": None} for row in rows if {"image", "speech"} & row.keys()]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in kept))
    train(with_training(tolerant(everything, 1.0), batch_size=4, weight_decay=0.0))
    assert all(line["loss"] == 0 and line["grad_norm"] == 0 for line in lines(everything))
