from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from trimodal.batch import Batch
from trimodal.config import RunConfig, to_dict
from trimodal.models import TrimodalConfig, TrimodalModel, TrimodalOutput
from trimodal.testing import assert_close
from trimodal.training.feed import StepFeed
from trimodal.training.gradients import StepGradients
from trimodal.training.trainer import build_dataset, build_processor


def model_of(config: RunConfig) -> TrimodalModel:
    torch.manual_seed(1)
    model = TrimodalModel(TrimodalConfig(architecture=to_dict(config.model)))
    torch.nn.init.normal_(model.fusion.projection.weight, std=0.1)
    return model.train()


def batches_of(config: RunConfig, budget: int) -> list[Batch]:
    config = replace(config, training=replace(config.training, token_budget=budget))
    return StepFeed(build_dataset(config, build_processor(config)), config).batches(0)


def run(config: RunConfig, budget: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Losses and gradients in double precision, in which rounding hides no mistake."""
    model = model_of(config).double()
    batches = [_double(batch) for batch in batches_of(config, budget)]
    losses = StepGradients(Accelerator(cpu=True), model, config)(batches, 0)
    return losses, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_micro_batches_give_the_gradient_of_the_whole_step(config: RunConfig) -> None:
    whole_losses, whole = run(config, 100_000)
    cut_losses, cut = run(config, 80)
    assert len(batches_of(config, 80)) > 2
    assert whole.keys() == cut.keys() == dict(model_of(config).named_parameters()).keys()
    for name, loss in whole_losses.items():
        assert_close(cut_losses[name], loss, "micro-batches")
    for name, grad in whole.items():
        assert_close(cut[name], grad, "micro-batches")


def test_the_loss_is_the_weighted_sum_of_its_parts(config: RunConfig) -> None:
    losses, _ = run(config, 100_000)
    hidden = [
        losses[f"masked_{m}"] for m in ("vision", "text", "speech") if f"masked_{m}" in losses
    ]
    assert_close(losses["masked"], sum(hidden) / len(hidden), "fp32")
    assert_close(losses["loss"], losses["contrastive"] + 0.5 * losses["masked"], "fp32")
    pairs = [v for k, v in losses.items() if k.startswith("contrastive_")]
    assert_close(losses["contrastive"], sum(pairs) / len(pairs), "fp32")


def test_the_gradient_is_that_of_the_loss(config: RunConfig) -> None:
    """Against a finite difference along the gradient itself, dropout being off."""
    model, batches = model_of(config), batches_of(config, 100_000)
    step = StepGradients(Accelerator(cpu=True), model.double(), config)
    batches = [_double(batch) for batch in batches]
    before = step(batches, 0)["loss"]
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    size, norm2 = 1e-5, float(sum(g.square().sum() for g in grads.values()))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter -= size * grads[name] / norm2
    after = step(batches, 0)["loss"]
    assert abs((before - after) / size - 1.0) < 0.01


def _double(batch: Batch) -> Batch:
    def convert(features: torch.Tensor) -> torch.Tensor:
        return features.double() if features.is_floating_point() else features

    media = {m: replace(b, features=convert(b.features)) for m, b in batch.media.items()}
    views = batch.views
    assert views is not None
    predictions = {m: replace(p, target=convert(p.target)) for m, p in views.predictions.items()}
    return replace(batch, media=media, views=replace(views, predictions=predictions))


def test_an_objective_of_weight_0_leaves_no_trace(config: RunConfig) -> None:
    objectives = config.objectives
    assert objectives.masked is not None
    off = replace(objectives, masked=replace(objectives.masked, weight=0.0))
    losses, grads = run(replace(config, objectives=off), 100_000)
    assert not grads["prediction_head.transform.weight"].any()
    assert losses["loss"] == losses["contrastive"]


def with_dropout(config: RunConfig) -> RunConfig:
    trunk = replace(config.model.trunk, dropout=0.5)
    return replace(config, model=replace(config.model, trunk=trunk))


def test_dropout_is_the_same_in_both_passes(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    forward = StepGradients._forward

    def recorded(self: StepGradients, batch: Batch, step: int, index: int) -> TrimodalOutput:
        output = forward(self, batch, step, index)
        assert output.z_NSE is not None
        seen.append(output.z_NSE.detach())
        return output

    monkeypatch.setattr(StepGradients, "_forward", recorded)
    run(with_dropout(config), 80)
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(first) > 2
    for a, b in zip(first, second, strict=True):
        assert_close(a, b, "exact")


def test_dropout_does_not_depend_on_what_was_drawn_before(config: RunConfig) -> None:
    _, first = run(with_dropout(config), 80)
    torch.manual_seed(99)
    _, second = run(with_dropout(config), 80)
    for name, grad in first.items():
        assert_close(second[name], grad, "exact")
