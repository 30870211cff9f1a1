import math
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from trimodal.config import TrainingConfig
from trimodal.testing import assert_close, tiny_model
from trimodal.training.components import lock
from trimodal.training.norms import GradientNorms
from trimodal.training.sharding import own, prepare

COMPONENTS = ["heads", "speech", "text", "trunk", "vision"]


def with_gradients(model: nn.Module, **given: list[float]) -> nn.Module:
    """Of zeros, but for the first entries of some parameters; underscores of names are dots."""
    named = {name.replace(".", "_"): parameter for name, parameter in model.named_parameters()}
    for name, parameter in named.items():
        parameter.grad = torch.zeros_like(parameter)
        values = torch.tensor(given.pop(name, []))
        own(parameter.grad).view(-1)[: len(values)] = values
    assert not given, "there are no such parameters"
    return model


KNOWN = {
    "encoders_0_transformer_norm_weight": [3.0, 4.0],
    "encoders_1_frontend_table_weight": [2.0],
    "encoders_1_to_trunk_weight": [1.0],
    "trunk_norm_weight": [-2.0, 2.0],
    "logit_scale": [12.0],
}
"""Vision 5, text 2, trunk 3 with the way into it, heads 12; of speech nothing."""
EXPECTED = {"heads": 12.0, "speech": 0.0, "text": 2.0, "trunk": 3.0, "vision": 5.0}


@pytest.mark.parametrize("most", [1.0, 100.0])
def test_norms_by_hand(most: float) -> None:
    model = with_gradients(tiny_model(), **KNOWN)
    norms = GradientNorms(Accelerator(cpu=True), model)
    total = math.sqrt(25 + 4 + 9 + 144)
    assert_close(norms.clip(most), total, "fp32")
    named = norms.named(norms.squares)
    assert list(named) == [f"grad_norm/{name}" for name in COMPONENTS]
    assert_close(list(named.values()), list(EXPECTED.values()), "fp32")
    left = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert_close(left, min(most, total), "fp32")


def test_gradients_are_clipped_as_torch_does_to_the_last_bit() -> None:
    torch.manual_seed(3)
    one, two = tiny_model(), tiny_model()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        a.grad = torch.randn_like(a) * torch.rand(())
        b.grad = a.grad.clone()
    expected = float(nn.utils.clip_grad_norm_(two.parameters(), 0.7))
    assert GradientNorms(Accelerator(cpu=True), one).clip(0.7) == expected
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert_close(a.grad, b.grad, "exact")


def test_what_is_frozen_has_no_norm() -> None:
    model = tiny_model()
    lock(model, TrainingConfig(init_from="x", frozen=("vision", "text"), unlocked={"text": 1}))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    norms = GradientNorms(Accelerator(cpu=True), model)
    norms.clip(1.0)
    assert norms.components == ["heads", "speech", "text", "trunk"]
    unlocked = [p for name, p in model.named_parameters() if p.grad is not None and "rs.1." in name]
    assert unlocked
    assert (
        0
        < norms.named(norms.squares)["grad_norm/text"]
        < norms.named(norms.squares)["grad_norm/speech"]
    )


def test_of_ranks_that_have_the_same_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_gradients(tiny_model(), **KNOWN)
    monkeypatch.setattr(Accelerator, "is_main_process", False)
    norms = GradientNorms(Accelerator(cpu=True), model)
    assert norms.clip(1.0) > 13
    assert norms.squares == [0.0] * len(COMPONENTS)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_not_finite_shows_where_it_is(number: float) -> None:
    model = with_gradients(
        tiny_model(), **(KNOWN | {"encoders_0_transformer_norm_weight": [number]})
    )
    norms = GradientNorms(Accelerator(cpu=True), model)
    assert not math.isfinite(norms.clip(1.0))
    broken = {name for name, x in norms.named(norms.squares).items() if not math.isfinite(x)}
    assert broken == {"grad_norm/vision"}


def test_of_spread_parameters_the_rows_of_a_rank_count(sharding: Accelerator) -> None:
    model: Any = prepare(sharding, tiny_model())
    with_gradients(model, **KNOWN)
    norms = GradientNorms(sharding, model)
    assert_close(norms.clip(1.0), math.sqrt(182), "fp32")
    assert_close(norms.squares, [x * x for x in EXPECTED.values()], "fp32")
