from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trimodal.testing import assert_close
from trimodal_kernels.contrastive import cpu, reference
from trimodal_kernels.contrastive.pairs import Pairs

Weights = Callable[[Pairs], tuple[Tensor, Tensor]]


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "ROWS", 4)
    monkeypatch.setattr(cpu, "PRODUCTS", 16)


def compare(pairs: Pairs, weights: Weights, losses: str, gradients: str) -> None:
    expected = reference.forward(pairs)
    found = cpu.forward(pairs)
    assert_close(found.loss_N, expected.loss_N, losses)
    assert_close(found.loss_M, expected.loss_M, losses)
    grads = weights(pairs)
    right = reference.backward(pairs, *grads)
    made = cpu.backward(pairs, *grads, found.state_2N, found.state_2M)
    for x, y in zip(made, right, strict=True):
        assert x.dtype is y.dtype
        assert_close(x, y, gradients)


@pytest.mark.parametrize("sizes", [(1, 1), (3, 9), (4, 4), (5, 3), (9, 21), (0, 3), (3, 0)])
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize(("both", "masked"), [(False, False), (False, True), (True, False)])
def test_rows_in_turn_are_all_at_once(
    problem: Callable[..., Pairs],
    weights: Weights,
    poisoned: None,
    sizes: tuple[int, int],
    sigmoid: bool,
    both: bool,
    masked: bool,
) -> None:
    compare(problem(*sizes, both=both, masked=masked, sigmoid=sigmoid), weights, "fp64", "fp64")


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("scale", [9.0, 100.0, 1e4])
def test_logits_of_any_size(
    problem: Callable[..., Pairs], weights: Weights, scale: float, sigmoid: bool
) -> None:
    compare(problem(9, 21, both=True, sigmoid=sigmoid, scale=scale), weights, "fp64", "fp64")


@pytest.mark.parametrize("sigmoid", [False, True])
def test_single_precision(problem: Callable[..., Pairs], weights: Weights, sigmoid: bool) -> None:
    pairs = problem(9, 21, both=True, sigmoid=sigmoid, dtype=torch.float32)
    compare(pairs, weights, "fp32", "fp32-gradient")


def test_16_bits_are_summed_in_32(problem: Callable[..., Pairs], weights: Weights) -> None:
    compare(problem(9, 21, both=True, dtype=torch.bfloat16), weights, "fp32", "bf16")


def test_a_sure_positive_costs_next_to_nothing_and_keeps_its_slope() -> None:
    """The sigmoid's loss of a logit of 78, e^-78, is far below the rounding of 78."""
    one = torch.ones(1, 1)
    ids, count = torch.zeros(1, dtype=torch.int32), torch.ones(1, dtype=torch.int64)
    scale, bias = torch.tensor(80.0), torch.tensor(-2.0)
    pairs = Pairs(one, one, ids, ids, count, count[:0], None, None, scale, bias, both=False)
    expected = torch.tensor([-78.0], dtype=torch.float64).exp()
    found = cpu.forward(pairs)
    assert_close(found.loss_N / expected, torch.ones(1), "fp32")
    grads = cpu.backward(pairs, torch.ones(1), torch.ones(0), found.state_2N, found.state_2M)
    assert_close(grads.bias / -expected[0], 1.0, "fp32")


@pytest.mark.parametrize("sigmoid", [False, True])
def test_the_same_in_every_run(
    problem: Callable[..., Pairs], weights: Weights, sigmoid: bool
) -> None:
    pairs = problem(9, 21, both=True, sigmoid=sigmoid, dtype=torch.float32)
    grads = weights(pairs)
    runs = []
    for _ in range(2):
        losses = cpu.forward(pairs)
        runs.append([*losses, *cpu.backward(pairs, *grads, *losses[2:])])
    assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))


class _Largest(TorchDispatchMode):
    """The most numbers that any operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and not func.is_view:
            self.numbers = max(self.numbers, found.untyped_storage().nbytes() // found.itemsize)
        return found


@pytest.mark.parametrize("sigmoid", [False, True])
def test_memory_grows_with_rows_and_columns_and_not_with_their_product(
    problem: Callable[..., Pairs], weights: Weights, sigmoid: bool
) -> None:
    pairs = problem(300, 400, both=True, sigmoid=sigmoid, dtype=torch.float32)
    with _Largest() as largest:
        losses = cpu.forward(pairs)
        cpu.backward(pairs, *weights(pairs), *losses[2:])
    assert largest.numbers <= 400 * 20 * 2, "numbers of the embeddings, or of 4 rows twice"
