"""Every implementation against plain torch in double precision."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.testing import assert_close
from trimodal_kernels import linear_cross_entropy
from trimodal_kernels.dispatch import VARIABLE
from trimodal_kernels.linear_cross_entropy.reference import reference_linear_cross_entropy

Make = Callable[..., tuple[Tensor, Tensor, Tensor]]
PATHS = ("reference", "auto", "triton")


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, request.param)


def gradients(loss: Tensor, h_KD: Tensor, weight_VD: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, (h_KD, weight_VD))


@pytest.mark.parametrize(("size", "outputs"), [(0, 5), (1, 1), (1, 16), (6, 15), (5, 17), (3, 70)])
@pytest.mark.usefixtures("path", "poisoned")
def test_the_loss_is_the_summed_cross_entropy(problem: Make, size: int, outputs: int) -> None:
    h_KD, weight_VD, target_K = problem(size, outputs, 7)
    loss = linear_cross_entropy(h_KD, weight_VD, target_K, label_smoothing=0.25)
    logits_KV = F.linear(h_KD, weight_VD)
    expected = F.cross_entropy(logits_KV, target_K, reduction="sum", label_smoothing=0.25)
    assert_close(loss, expected, "fp64")
    found = gradients(3 * loss, h_KD, weight_VD)
    for grad, right in zip(found, gradients(3 * expected, h_KD, weight_VD), strict=True):
        assert_close(grad, right, "fp64")


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.125, 0.0), (0.25, 0.5)])
def test_the_gradient_is_the_derivative(problem: Make, smoothing: float, z_loss: float) -> None:
    h_KD, weight_VD, target_K = problem(3, 9, 4)

    def loss(h_KD: Tensor, weight_VD: Tensor) -> Tensor:
        return linear_cross_entropy(
            h_KD, weight_VD, target_K, label_smoothing=smoothing, z_loss=z_loss
        )

    assert torch.autograd.gradcheck(loss, (h_KD, weight_VD))


@pytest.mark.usefixtures("path")
def test_the_z_loss_is_the_square_of_the_logarithm_of_the_denominator(problem: Make) -> None:
    h_KD, weight_VD, target_K = problem(4, 12, 3)
    bare, more = (
        linear_cross_entropy(h_KD, weight_VD, target_K, z_loss=weight) for weight in (0.0, 0.5)
    )
    log_total_K = F.linear(h_KD, weight_VD).logsumexp(1)
    assert_close(more - bare, 0.5 * log_total_K.square().sum(), "fp64")


@pytest.mark.usefixtures("path")
def test_large_logits_neither_overflow_nor_vanish(problem: Make) -> None:
    h_KD, weight_VD, target_K = problem(4, 20, 8)
    with torch.no_grad():
        h_KD *= 1e4
    loss = linear_cross_entropy(h_KD, weight_VD, target_K)
    expected = F.cross_entropy(F.linear(h_KD, weight_VD), target_K, reduction="sum")
    assert_close(loss, expected, "fp64")
    assert all(grad.isfinite().all() for grad in gradients(loss, h_KD, weight_VD))


@pytest.mark.usefixtures("path")
def test_a_range_of_a_table_is_taught_alone(problem: Make) -> None:
    h_KD, table_VD, _ = problem(4, 30, 8)
    target_K = torch.tensor([0, 4, 2, 2])
    linear_cross_entropy(h_KD, table_VD[10:15], target_K).backward()
    assert table_VD.grad is not None
    assert table_VD.grad.any(1).nonzero().flatten().tolist() == list(range(10, 15))


@pytest.mark.usefixtures("path")
def test_inputs_need_not_be_contiguous(problem: Make) -> None:
    h_KD, weight_VD, target_K = problem(5, 18, 6)
    strided_KD = h_KD.detach().T.contiguous().T.requires_grad_()
    strided_VD = weight_VD.detach().repeat(1, 2)[:, ::2].requires_grad_()
    strided_VD.data.copy_(weight_VD.detach())
    every_other_K = target_K.repeat_interleave(2)[::2]
    loss = linear_cross_entropy(strided_KD, strided_VD, every_other_K)
    right = linear_cross_entropy(h_KD, weight_VD, target_K)
    assert_close(loss, right, "fp64")
    found = gradients(loss, strided_KD, strided_VD)
    for grad, expected in zip(found, gradients(right, h_KD, weight_VD), strict=True):
        assert_close(grad, expected, "fp64")


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_is_near_double(problem: Make, dtype: torch.dtype) -> None:
    h_KD, weight_VD, target_K = problem(6, 33, 16, dtype)
    loss = linear_cross_entropy(h_KD, weight_VD, target_K, label_smoothing=0.125)
    wide = (h_KD.double(), weight_VD.double())
    expected = reference_linear_cross_entropy(*wide, target_K, 0.125)
    assert loss.dtype is torch.float32
    kind = "fp32" if dtype is torch.float32 else "bf16"
    assert_close(loss, expected, kind)
    for grad, right in zip(
        gradients(loss, h_KD, weight_VD), gradients(expected, *wide), strict=True
    ):
        assert grad.dtype is dtype
        assert_close((grad.double() - right).norm() / right.norm(), 0.0, kind)


@pytest.mark.usefixtures("path")
def test_autocast_computes_in_its_type_and_teaches_the_weight_in_its_own(problem: Make) -> None:
    h_KD, weight_VD, target_K = problem(6, 33, 16, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(h_KD, weight_VD, target_K)
        logits_KV = F.linear(h_KD, weight_VD)
    assert_close(loss, F.cross_entropy(logits_KV.float(), target_K, reduction="sum"), "fp32")
    grads = gradients(loss, h_KD, weight_VD)
    assert {grad.dtype for grad in grads} == {torch.float32}


@pytest.mark.usefixtures("path")
def test_it_compiles_into_one_graph(problem: Make) -> None:
    h_KD, weight_VD, target_K = problem(4, 18, 8)
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    loss, right = (f(h_KD, weight_VD, target_K) for f in (compiled, linear_cross_entropy))
    assert_close(loss, right, "fp64")
    found = gradients(loss, h_KD, weight_VD)
    for grad, expected in zip(found, gradients(right, h_KD, weight_VD), strict=True):
        assert_close(grad, expected, "fp64")


@pytest.mark.usefixtures("path")
def test_twice_the_same_is_bitwise_the_same(problem: Make) -> None:
    h_KD, weight_VD, target_K = problem(9, 40, 8, torch.float32)
    runs = []
    for _ in range(2):
        loss = linear_cross_entropy(h_KD, weight_VD, target_K, label_smoothing=0.1)
        runs.append((loss, *gradients(loss, h_KD, weight_VD)))
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("rows", "weight", "targets", "message"),
    [
        ((3, 4), (5, 6), (3,), r"rows \(3, 4\) for a weight \(5, 6\)"),
        ((3, 2, 4), (5, 4), (3, 2), r"rows \(3, 2, 4\)"),
        ((3, 4), (5, 4), (2,), r"targets \(2,\) for 3 rows"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    rows: tuple[int, ...], weight: tuple[int, ...], targets: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(
            torch.zeros(rows), torch.zeros(weight), torch.zeros(targets, dtype=torch.int64)
        )


def test_targets_outside_the_range_are_refused(problem: Make) -> None:
    h_KD, weight_VD, target_K = problem(3, 5, 4)
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        linear_cross_entropy(h_KD, weight_VD, target_K + 5)
