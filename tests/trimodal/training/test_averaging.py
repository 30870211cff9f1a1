from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import trimodal
from trimodal.config import AverageConfig, RunConfig
from trimodal.errors import StoppedError
from trimodal.testing import assert_close
from trimodal.training.averaging import WeightAverage
from trimodal.training.trainer import train


def single(value: float, dtype: torch.dtype = torch.float32) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False, dtype=dtype)
    return set_to(model, value)


def set_to(model: nn.Linear, value: float) -> nn.Linear:
    with torch.no_grad():
        model.weight.fill_(value)
    return model


def test_the_average_of_three_updates_by_hand() -> None:
    model = single(8.0)
    average = WeightAverage(model, AverageConfig(decay=0.2))
    expected = 8.0
    for n, value in enumerate((4.0, 2.0, 1.0), start=1):
        set_to(model, value)
        average.update()
        decay = min(0.2, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    assert_close(average.tensors()["average"]["weight"].flatten(), [expected], "fp32")
    assert int(average.tensors()["average"]["updates"]) == 3


def test_first_updates_forget_faster_than_the_last() -> None:
    model = single(1.0)
    average = WeightAverage(model, AverageConfig(decay=0.9999))
    set_to(model, 0.0)
    average.update()
    assert_close(average.tensors()["average"]["weight"].flatten(), [2 / 11], "fp32")


def test_small_changes_of_half_precision_are_not_lost() -> None:
    model = single(1.0, torch.bfloat16)
    average = WeightAverage(model, AverageConfig(decay=0.999))
    set_to(model, 1.0078125)  # the next number in bf16; a thousandth of the step is none in it
    average.updates = 10**6
    average.update()
    held = average.tensors()["average"]["weight"]
    assert held.dtype == torch.float32
    assert_close(held.flatten(), [1.0 + 0.0078125 / 1000], "fp32")


def test_what_was_trained_comes_back_to_the_last_bit() -> None:
    torch.manual_seed(1)
    model = nn.Linear(3, 2)
    average = WeightAverage(model, AverageConfig())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        model.weight.add_(1)
    trained = model.weight.detach().clone()

    def fail() -> None:
        with average.applied():
            assert torch.equal(model.weight, before["weight"])
            raise StoppedError("in the midst of it")

    with pytest.raises(StoppedError):
        fail()
    assert torch.equal(model.weight, trained)


def test_what_is_frozen_is_not_averaged() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert WeightAverage(model, AverageConfig()).tensors()["average"].keys() == {
        "weight",
        "updates",
    }


def test_without_a_configuration_nothing_is_kept() -> None:
    model = single(1.0)
    average = WeightAverage(model, None)
    average.update()
    with average.applied():
        assert float(model.weight) == 1.0
    assert average.tensors() == {}


def test_it_goes_on_where_it_was_saved() -> None:
    def advance(model: nn.Linear, average: WeightAverage, values: tuple[float, ...]) -> None:
        for value in values:
            set_to(model, value)
            average.update()

    model = single(1.0)
    whole = WeightAverage(model, AverageConfig(decay=0.5))
    advance(model, whole, (2.0, 3.0, 5.0, 7.0))
    other = single(1.0)
    first = WeightAverage(other, AverageConfig(decay=0.5))
    advance(other, first, (2.0, 3.0))
    files = first.tensors()
    second = WeightAverage(other, AverageConfig(decay=0.5))
    second.restore(files)
    advance(other, second, (5.0, 7.0))
    assert torch.equal(second.tensors()["average"]["weight"], whole.tensors()["average"]["weight"])


def test_a_checkpoint_without_one_begins_it_with_its_weights() -> None:
    model = single(1.0)
    average = WeightAverage(model, AverageConfig(decay=0.5))
    set_to(model, 4.0)
    average.restore({})
    assert float(average.tensors()["average"]["weight"]) == 4.0


@pytest.fixture
def averaged(config: RunConfig) -> RunConfig:
    training = replace(
        config.training, ema=AverageConfig(decay=0.5), checkpoint_every=1, keep_checkpoints=9
    )
    return replace(config, training=training)


def by_hand(run: Path, decay: float) -> dict[str, torch.Tensor]:
    """The average over the weights of every step but for the first ones, which begin it."""
    folders = sorted((run / "checkpoints").iterdir())
    found = load_file(folders[0] / "average.safetensors")
    for n, folder in enumerate(folders[1:], start=2):
        least = min(decay, (1 + n) / (10 + n))
        for name, weight in load_file(folder / "model.safetensors").items():
            found[name].lerp_(weight, 1 - least)
    return {name: value for name, value in found.items() if name != "updates"}


def test_the_export_is_the_average_and_the_checkpoint_is_not(averaged: RunConfig) -> None:
    train(averaged)
    run = Path(averaged.run_dir)
    exported = trimodal.load(run / "model").state_dict()
    expected = by_hand(run, 0.5)
    assert expected.keys() == exported.keys()
    assert all(torch.equal(exported[name], value) for name, value in expected.items())
    raw = load_file(run / "checkpoints" / "step-00000006" / "model.safetensors")
    assert not torch.equal(raw["trunk.norm.weight"], exported["trunk.norm.weight"])


def test_validation_sees_the_average(averaged: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def validate(model: nn.Module, *_: object) -> dict[str, float]:
        seen.append(model.get_parameter("trunk.norm.weight").detach().clone())
        return {}

    monkeypatch.setattr("trimodal.training.trainer.validate", validate)
    config = replace(
        averaged,
        data=replace(averaged.data, validation=averaged.data.train[0]),
        training=replace(averaged.training, validate_every=6),
    )
    train(config)
    last = load_file(Path(config.run_dir) / "checkpoints" / "step-00000006" / "average.safetensors")
    assert torch.equal(seen[-1], last["trunk.norm.weight"])


def test_a_run_that_goes_on_has_the_average_of_one_that_did(
    averaged: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(averaged)
    other = replace(averaged, run_dir=str(tmp_path / "other"))
    update: Callable[[WeightAverage], None] = WeightAverage.update
    count = 0

    def stopping(self: WeightAverage) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise StoppedError("here")
        update(self)

    with monkeypatch.context() as patch:
        patch.setattr(WeightAverage, "update", stopping)
        with pytest.raises(StoppedError, match="here"):
            train(other)
    train(other)
    one, two = (trimodal.load(Path(c.run_dir) / "model").state_dict() for c in (averaged, other))
    assert all(torch.equal(one[name], two[name]) for name in one)
