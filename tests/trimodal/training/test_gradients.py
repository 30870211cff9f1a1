import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from trimodal.batch import Batch
from trimodal.config import (
    CausalConfig,
    ContrastiveConfig,
    LengthConfig,
    MaskedConfig,
    MatchingConfig,
    ObjectivesConfig,
    RunConfig,
    TargetConfig,
)
from trimodal.models import TrimodalConfig, TrimodalModel, TrimodalOutput
from trimodal.objectives import LOSSES, contrastive, of_batches, weights
from trimodal.schema import to_dict
from trimodal.testing import assert_close
from trimodal.training.building import build_dataset, build_processor
from trimodal.training.feed import StepFeed
from trimodal.training.gradients import StepGradients, _nothing
from trimodal.vocabulary import NUM_SPECIAL, Special, Vocabulary

CONTRASTED = ("image_text", "image_speech", "text_speech", "fused_image", "fused_text")
"""Pairs of which a batch of the tests has two samples."""
Run = tuple[dict[str, float], dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def config(kept: RunConfig) -> RunConfig:
    return kept


@pytest.fixture(scope="module")
def everything(kept_everything: RunConfig) -> RunConfig:
    return kept_everything


def model_of(config: RunConfig) -> TrimodalModel:
    torch.manual_seed(1)
    model = TrimodalModel(TrimodalConfig(architecture=to_dict(config.model)))
    torch.nn.init.normal_(model.fusion.projection.weight, std=0.1)
    return model.train()


def batches_of(config: RunConfig, budget: int) -> list[Batch]:
    config = replace(config, training=replace(config.training, token_budget=budget))
    return StepFeed(build_dataset(config, build_processor(config)), config).batches(0)


def run(config: RunConfig, budget: int) -> Run:
    """Losses and gradients in double precision, in which rounding hides no mistake."""
    model = model_of(config).double()
    batches = [_double(batch) for batch in batches_of(config, budget)]
    losses = StepGradients(Accelerator(cpu=True), model, config)(batches)
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
    before = step(batches)["loss"]
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    size, norm2 = 1e-5, float(sum(g.square().sum() for g in grads.values()))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter -= size * grads[name] / norm2
    after = step(batches)["loss"]
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


def with_dropout(config: RunConfig, rate: float = 0.3) -> RunConfig:
    stacks = {
        name: replace(getattr(config.model, name), dropout=rate)
        for name in ("vision", "text", "speech", "trunk")
    }
    return replace(config, model=replace(config.model, **stacks))


def test_dropout_is_the_same_in_both_passes(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    forward = StepGradients._forward

    def recorded(self: StepGradients, batch: Batch) -> TrimodalOutput:
        output = forward(self, batch)
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


def test_dropout_does_not_depend_on_the_budget(everything: RunConfig) -> None:
    """With every pretext task: what is dropped of a sample is a function of seed and step alone."""
    config = with_dropout(everything)
    whole_losses, whole = run(config, 100_000)
    cut_losses, cut = run(config, 120)
    plain_losses, _ = run(everything, 100_000)
    assert len(batches_of(config, 120)) > 2
    for name, loss in whole_losses.items():
        assert_close(cut_losses[name], loss, "micro-batches")
        assert plain_losses[name] != loss
    for name, grad in whole.items():
        assert_close(cut[name], grad, "micro-batches")


def test_dropout_is_drawn_anew_in_every_step(config: RunConfig) -> None:
    feed = StepFeed(build_dataset(config, build_processor(config)), config)
    seeds = [
        media.tokens.seed_T
        for step in range(2)
        for batch in feed.batches(step)
        for media in (*batch.media.values(), batch.views)
        if media is not None
    ]
    drawn = torch.cat([seed_T for seed_T in seeds if seed_T is not None])
    assert len(seeds) > 6
    assert len(drawn.unique()) == len(drawn)


def only_contrast(config: RunConfig) -> RunConfig:
    """All three pairs of modalities, and every fused view."""
    return replace(config, objectives=ObjectivesConfig(contrastive=ContrastiveConfig(fused=1.0)))


def plain_gradients(config: RunConfig) -> tuple[float, dict[str, torch.Tensor]]:
    """Of one forward and one backward through everything, with nothing of `StepGradients`."""
    model = model_of(config)
    (batch,) = batches_of(config, 100_000)
    output = model(**batch.inputs())
    assert output.z_NSE is not None
    everyone = of_batches(output.z_NSE, [batch])
    scale, bias = output.logit_scale, output.logit_bias
    assert scale is not None
    assert bias is not None
    assert config.objectives.contrastive is not None
    loss, _ = contrastive(
        everyone, everyone, scale, bias, config.objectives.contrastive, config.model.dimensions
    )
    loss.backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_cached_gradients_are_those_of_the_full_batch(config: RunConfig, rate: float) -> None:
    """Three pair losses and the fused ones in fp32, with and without dropout to be replayed."""
    config = with_dropout(only_contrast(config), rate)
    loss, whole = plain_gradients(config)
    model, batches = model_of(config), batches_of(config, 60)
    assert len(batches) > 3
    losses = StepGradients(Accelerator(cpu=True), model, config)(batches)
    assert {f"contrastive_{name}" for name in CONTRASTED} <= set(losses)
    assert_close(losses["loss"], loss, "fp32")
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        expected = whole.get(name, torch.zeros_like(parameter))
        largest = expected.abs().max().clamp(min=1e-6)
        assert_close(parameter.grad / largest, expected / largest, "cached-gradient")
    assert sum(bool(grad.any()) for grad in whole.values()) > 50


def test_a_micro_batch_of_nothing_adds_nothing(config: RunConfig) -> None:
    """What a rank computes that has fewer micro-batches than another."""
    found = []
    for extra in (0, 2):
        model, batches = model_of(config), batches_of(config, 80)
        batches += [_nothing(batches[0])] * extra
        losses = StepGradients(Accelerator(cpu=True), model, config)(batches)
        found.append((losses, {n: p.grad for n, p in model.named_parameters()}))
    (losses, grads), (padded_losses, padded_grads) = found
    assert padded_losses == losses
    for name, grad in grads.items():
        assert_close(padded_grads[name], grad, "exact")


def test_pretext_tasks_in_micro_batches_give_the_gradient_of_the_whole_step(
    everything: RunConfig,
) -> None:
    whole_losses, whole = run(everything, 100_000)
    cut_losses, cut = run(everything, 120)
    assert len(batches_of(everything, 120)) > 2
    assert {"target_speech", "causal_text", "length_speech", "masked_vision"} <= set(whole_losses)
    assert whole.keys() == cut.keys() == dict(model_of(everything).named_parameters()).keys()
    for name, loss in whole_losses.items():
        assert_close(cut_losses[name], loss, "micro-batches")
    for name, grad in whole.items():
        assert_close(cut[name], grad, "micro-batches")


def test_the_gradient_of_all_pretext_tasks_is_that_of_their_loss(everything: RunConfig) -> None:
    test_the_gradient_is_that_of_the_loss(everything)


def test_a_new_model_is_as_unsure_as_there_are_ids(everything: RunConfig) -> None:
    """A loss is a mean over positions, however many of them there are."""
    losses, _ = run(everything, 120)
    vocabulary = everything.model.vocabulary
    sizes = {
        "causal_text": vocabulary.text + 1,
        "masked_text": vocabulary.text,
        "masked_vision": vocabulary.vision,
        "masked_speech": vocabulary.speech,
        "target_vision": vocabulary.vision,
        "target_speech": vocabulary.speech,
    }
    found = {name: losses[name] / math.log(size) for name, size in sizes.items() if name in losses}
    assert len(found) > 3
    assert all(0.9 < ratio < 1.1 for ratio in found.values())


def with_matching(config: RunConfig) -> RunConfig:
    objectives = replace(config.objectives, matching=MatchingConfig(weight=0.3, rate=1.0))
    return replace(config, objectives=objectives)


@pytest.fixture(scope="module")
def matched(everything: RunConfig) -> Run:
    """Losses and gradients of all objectives, for all tests, which leave them as they are."""
    return run(with_matching(everything), 100_000)


@pytest.mark.parametrize("name", ["masked", "target", "causal", "length", "matching"])
def test_each_objective_adds_its_weighted_mean(
    everything: RunConfig, matched: Run, name: str
) -> None:
    everything = with_matching(everything)
    losses, _ = matched
    parts = [losses[part] for part in LOSSES[name] if part in losses]
    assert_close(losses[name], sum(parts) / len(parts), "fp32")
    objectives = everything.objectives
    weighted = {"contrastive": 1.0, **weights(objectives)}
    total = sum(weight * losses[part] for part, weight in weighted.items() if weight)
    assert_close(losses["loss"], total, "fp32")


@pytest.mark.parametrize("budget", [100_000, 120])
def test_matching_is_the_mean_over_the_tuples_of_a_step(everything: RunConfig, budget: int) -> None:
    config = with_matching(everything)
    model = model_of(config).double()
    batches = [_double(batch) for batch in batches_of(config, budget)]
    found = [output.matching for output in (model(**batch.inputs()) for batch in batches)]
    logits = torch.cat([tuples[0] for tuples in found if tuples is not None])
    labels = torch.cat([tuples[1] for tuples in found if tuples is not None])
    assert len(labels.unique()) > 1
    losses = StepGradients(Accelerator(cpu=True), model, config)(batches)
    assert_close(losses["matching_tuples"], F.cross_entropy(logits, labels), "fp32")


def test_matching_alone_depends_on_what_lies_in_a_micro_batch(everything: RunConfig) -> None:
    """As `docs/training.md` says of other budgets and other numbers of processes."""
    config = with_dropout(with_matching(everything))
    whole, _ = run(config, 100_000)
    cut, _ = run(config, 120)
    drawn = [
        torch.cat([b.matching.draw_V3.sum(1) for b in batches_of(config, budget) if b.matching])
        for budget in (100_000, 120)
    ]
    assert_close(drawn[1].sort().values, drawn[0].sort().values, "exact")
    for name in whole.keys() - {"loss", "matching", "matching_tuples"}:
        assert_close(cut[name], whole[name], "micro-batches")
    assert abs(cut["matching_tuples"] - whole["matching_tuples"]) > 1e-3


@pytest.mark.parametrize("name", ["contrastive", "target", "causal", "length", "matching"])
def test_a_weight_is_a_factor_of_the_gradient(
    everything: RunConfig, matched: Run, name: str
) -> None:
    """Twice the weight: twice that objective's part of the gradient."""
    everything, grads = with_matching(everything), [matched[1]]
    for factor in (2.0, 3.0):
        objective = getattr(everything.objectives, name)
        weighted = replace(objective, weight=factor * objective.weight)
        objectives = replace(everything.objectives, **{name: weighted})
        grads.append(run(replace(everything, objectives=objectives), 100_000)[1])
    for parameter, grad in grads[1].items():
        assert_close(grads[2][parameter] - grad, grad - grads[0][parameter], "micro-batches")
    assert any((grads[1][n] - g).abs().max() > 1e-6 for n, g in grads[0].items())


TABLE = "encoders.1.frontend.table.weight"


def part(grads: dict[str, torch.Tensor], parameter: str) -> torch.Tensor:
    """The gradient of a parameter, or of the row of a special token in the table."""
    if parameter.startswith(f"{TABLE}."):
        return grads[TABLE][Special[parameter.removeprefix(f"{TABLE}.")]]
    return grads[parameter]


@pytest.mark.parametrize("off", ["left out", "weight 0"])
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("contrastive", ["logit_scale", "fusion.projection.weight"]),
        ("masked", ["prediction_head.cells.vision.weight", "encoders.0.frontend.mask"]),
        ("target", [f"{TABLE}.{name}" for name in ("MASK_VISION", "MASK_SPEECH", "BEGIN_VISION")]),
        ("causal", [f"{TABLE}.{name}" for name in ("BEGIN_TEXT", "END_TEXT", "ANSWER")]),
        ("length", ["prediction_head.length.weight", "prediction_head.length.bias"]),
        ("matching", ["matching_head.weight", "matching_head.bias"]),
    ],
)
def test_an_objective_that_is_off_has_gradient_0(
    everything: RunConfig, matched: Run, name: str, parameters: list[str], off: str
) -> None:
    """Exactly 0, though its views may be there, as a length is asked of every spoken target."""
    everything, (_, on) = with_matching(everything), matched
    assert all(part(on, parameter).any() for parameter in parameters)
    option = None if off == "left out" else replace(getattr(everything.objectives, name), weight=0)
    changed = {name: option, **({"length": None} if name == "target" else {})}
    objectives = replace(everything.objectives, **changed)
    losses, grads = run(replace(everything, objectives=objectives), 100_000)
    assert name not in losses
    for parameter in parameters:
        assert not part(grads, parameter).any()


@pytest.mark.parametrize("name", ["contrastive", "masked", "target", "causal", "matching"])
def test_what_is_off_is_as_if_it_were_left_out(everything: RunConfig, name: str) -> None:
    """A weight of 0 changes no bit of the losses and of the gradient of the others."""
    everything = with_matching(everything)
    if name == "target":
        everything = replace(everything, objectives=replace(everything.objectives, length=None))
    found = []
    for option in (None, replace(getattr(everything.objectives, name), weight=0.0)):
        objectives = replace(everything.objectives, **{name: option})
        found.append(run(replace(everything, objectives=objectives), 100_000))
    (out_losses, out), (off_losses, off) = found
    assert off_losses == out_losses
    assert not any(loss.startswith(name) for loss in off_losses)
    for parameter, grad in out.items():
        assert_close(off[parameter], grad, "exact")


def test_without_targets_the_table_learns_from_texts_alone(everything: RunConfig) -> None:
    masked = MaskedConfig(weight=0.0)
    objectives = ObjectivesConfig(contrastive=ContrastiveConfig(), masked=masked)
    _, grads = run(replace(everything, objectives=objectives), 100_000)
    table = grads[TABLE]
    vocabulary = Vocabulary(everything.model.vocabulary)
    assert not table[:NUM_SPECIAL].any()
    assert not table[vocabulary.vision.start :].any()
    assert table[NUM_SPECIAL : vocabulary.vision.start].any()


def only(config: RunConfig, name: str) -> ObjectivesConfig:
    if name == "contrastive":
        return only_contrast(config).objectives
    if name == "features":
        return ObjectivesConfig(masked=MaskedConfig(rate=1.0))
    smooth = {
        "target": TargetConfig(rate=1.0, label_smoothing=0.0),
        "length": LengthConfig(weight=1.0),
    }
    if name == "length":
        return ObjectivesConfig(**smooth)
    if name == "quantised":
        return ObjectivesConfig(masked=MaskedConfig(rate=1.0, speech_target="best_rq"))
    if name == "causal":
        return ObjectivesConfig(causal=CausalConfig(rate=1.0))
    if name == "target":
        return ObjectivesConfig(target=smooth["target"])
    assert config.objectives.masked is not None
    return ObjectivesConfig(masked=replace(config.objectives.masked, rate=1.0))


@pytest.mark.parametrize(
    ("name", "parts", "share"),
    [
        # rows of one group are all right, which leaves the entropy of choosing among them
        ("contrastive", tuple(f"contrastive_{pair}" for pair in CONTRASTED), 0.9),
        ("target", ("target", "target_vision", "target_speech"), 0.7),
        ("causal", ("causal",), 0.5),
        ("length", ("length",), 0.7),
        ("masked", ("masked",), 0.7),
        ("features", ("masked_vision", "masked_speech"), 0.7),
        ("quantised", ("quantised_speech",), 0.7),
    ],
)
def test_a_batch_can_be_learnt_by_heart(
    everything: RunConfig, name: str, parts: tuple[str, ...], share: float
) -> None:
    """Each part of an objective, and not just their sum."""
    model = replace(everything.model, best_rq_codebooks=2 if name == "quantised" else 0)
    config = replace(everything, model=model, objectives=only(everything, name))
    bare, batches = model_of(config), batches_of(config, 100_000)
    gradients = StepGradients(Accelerator(cpu=True), bare, config)
    optimizer, losses = torch.optim.AdamW(bare.parameters(), lr=1e-2), []
    for _ in range(15):
        losses.append(gradients(batches))
        optimizer.step()
        optimizer.zero_grad()
    for loss in parts:
        assert losses[-1][loss] < share * losses[0][loss], loss
