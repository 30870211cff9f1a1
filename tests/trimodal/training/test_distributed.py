"""What ranks tell each other; `tests/integration/test_two_processes.py` has real ones."""

import contextlib

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from trimodal.errors import ConfigError, NumericError
from trimodal.streams import digest
from trimodal.training import distributed
from trimodal.training.distributed import (
    _bits,
    by_rank,
    check_finite,
    check_launch,
    check_replicas,
    check_same,
    gather,
    sum_over_ranks,
)

CPU = torch.device("cpu")


class _OtherRank:
    """A second rank, whose model differs from this one's as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: nn.Module) -> None:
        self.sums = torch.stack([_bits(parameter) for parameter in model.parameters()])
        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        monkeypatch.setattr(dist, "all_reduce", self.reduce)

    def reduce(self, own: Tensor, operation: object) -> None:
        least = operation == dist.ReduceOp.MIN
        own.copy_((torch.minimum if least else torch.maximum)(own, self.sums))


def _model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model.register_parameter("scale", nn.Parameter(torch.tensor(2.0)))
    return model


def test_equal_replicas_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    _OtherRank(monkeypatch, _model())
    check_replicas(_model(), CPU)


@pytest.mark.parametrize("name", ["0.weight", "1.bias", "scale"])
def test_one_other_bit_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = _model()
    flat = dict(other.named_parameters())[name].detach().view(-1)
    flat.view(torch.uint8)[-1] ^= 1
    _OtherRank(monkeypatch, other)
    with pytest.raises(NumericError, match=f"^{name} is not the same on all ranks"):
        check_replicas(_model(), CPU)


@pytest.mark.parametrize("name", ["data", "checkpoint"])
def test_what_ranks_were_given_otherwise_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {"data": "abc", "configuration": {"seed": 0}, "checkpoint": 7}
    other = _OtherRank(monkeypatch, _model())
    other.sums = torch.tensor([digest(repr(value)) >> 1 for value in given.values()])
    check_same(given, CPU)
    with pytest.raises(ConfigError, match=f"^{name}: not the same on all ranks; start every"):
        check_same({**given, name: "another"}, CPU)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named_by_its_file(number: float) -> None:
    files = {
        "model": {"a": torch.ones(3), "b": torch.full((2,), 3e38)},
        "optimizer": {"a::step": torch.tensor(4), "a::exp_avg": torch.zeros(2, 2)},
    }
    check_finite(files, CPU)
    files["optimizer"]["a::exp_avg"][1, 1] = number
    with pytest.raises(NumericError, match=r"is not finite: optimizer \(1 tensors\); the last"):
        check_finite(files, CPU)


def test_what_is_not_finite_on_another_rank_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda total: total.add_(torch.tensor([0.0, 2.0])))
    with pytest.raises(NumericError, match=r"finite: average \(2 tensors\)"):
        check_finite({"model": {"a": torch.ones(1)}, "average": {"a": torch.ones(1)}}, CPU)


def test_every_bit_counts() -> None:
    x = torch.randn(9)
    before = _bits(x)
    for place in range(x.numel() * 4):
        for bit in range(8):
            x.view(torch.uint8)[place] ^= 1 << bit
            assert _bits(x) != before
            x.view(torch.uint8)[place] ^= 1 << bit
    assert _bits(x) == before


def test_values_that_change_places_are_seen() -> None:
    assert _bits(torch.tensor([1.0, 2.0])) != _bits(torch.tensor([2.0, 1.0]))


def test_one_process_has_nobody_to_ask() -> None:
    x = torch.randn(2, 3)
    assert gather(x) is x
    assert sum_over_ranks([1.0, 2.5], CPU) == [1.0, 2.5]
    assert by_rank(3) == [3.0]
    check_replicas(_model(), CPU)


def test_each_rank_has_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    assert by_rank(5) == [0.0, 5.0, 0.0]


@pytest.mark.parametrize(
    ("gpu", "environment", "said", "fault"),
    [
        (False, {}, "", ""),
        (False, {"WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}, "", ""),
        (True, {"WORLD_SIZE": "2"}, "", ""),
        (True, {"ACCELERATE_USE_CPU": "False"}, "", ""),
        (False, {"ACCELERATE_USE_CPU": "False"}, "this machine has no GPU; training on", ""),
        (False, {"WORLD_SIZE": "8"}, "", "8 processes were started for GPUs, and this machine"),
    ],
)
def test_gpus_that_are_asked_for_and_not_there_are_told_of(
    gpu: bool,
    environment: dict[str, str],
    said: str,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("WORLD_SIZE", "LOCAL_RANK", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    with pytest.raises(ConfigError, match=fault) if fault else contextlib.nullcontext():
        check_launch()
    told = capsys.readouterr().err
    assert told.startswith(f"trimodal: {said}") if said else told == ""


def test_the_first_process_says_it_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "1", "ACCELERATE_USE_CPU": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(distributed.time, "sleep", waited.append)
    with pytest.raises(ConfigError, match="2 processes were started"):
        check_launch()
    assert waited == [distributed.FIRST_SECONDS]
