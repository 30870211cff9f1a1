"""The Triton kernel against plain torch, in the interpreter or on a GPU."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.testing import assert_close
from trimodal_kernels import linear_cross_entropy
from trimodal_kernels.linear_cross_entropy.kernels import (
    NARROW,
    WIDE,
    Launch,
    builds,
    rows_at_once,
    softmax_,
)
from trimodal_kernels.linear_cross_entropy.reference import reference_linear_cross_entropy

Make = Callable[..., tuple[Tensor, Tensor, Tensor]]
SMALL = Launch(16, 1)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def padded(logits: Tensor) -> Tensor:
    """A copy whose rows begin at multiples of 16; between them lies NaN."""
    size, outputs = logits.shape
    room = logits.new_full((size, -(-outputs // 16) * 16), float("nan"))
    room[:, :outputs] = logits
    return room[:, :outputs]


def run(
    logits: Tensor, target: Tensor, smoothing: float, *, grades: bool, launch: Launch = SMALL
) -> tuple[Tensor, Tensor]:
    """The losses, and what has become of the logits."""
    room = padded(logits.detach()).to(DEVICE)
    exact = torch.promote_types(logits.dtype, torch.float32)
    loss = torch.full((len(logits),), float("nan"), dtype=exact, device=DEVICE)
    softmax_(room, target.to(DEVICE), loss, smoothing, 0.5, grades, launch)
    return loss.cpu(), room.cpu()


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 32, 50])
def test_logits_become_their_gradient(outputs: int, smoothing: float) -> None:
    logits = torch.randn(3, outputs, dtype=torch.float64, requires_grad=True)
    target = torch.randint(outputs, (3,))
    expected = F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
    expected = expected + 0.5 * logits.logsumexp(1).square()
    (right,) = torch.autograd.grad(expected.sum(), logits)
    loss, grad = run(logits, target, smoothing, grades=True)
    assert_close(loss, expected, "fp64")
    assert_close(grad, right, "fp64")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_16_bits_are_reduced_in_32(dtype: torch.dtype) -> None:
    logits = torch.randn(3, 45).to(dtype)
    target = torch.tensor([0, 44, 20])
    loss, grad = run(logits, target, 0.125, grades=True)
    wide = logits.double()
    expected_loss, expected = run(wide, target, 0.125, grades=True)
    assert loss.dtype is torch.float32
    assert_close(loss, expected_loss, "fp32")
    assert_close(grad, expected, "fp32" if dtype is torch.float32 else "bf16")


def test_logits_stay_where_no_gradient_is_wanted() -> None:
    logits = torch.randn(3, 21)
    loss, same = run(logits, torch.tensor([0, 20, 7]), 0.0, grades=False)
    assert_close(same, logits, "exact")
    assert_close(loss, run(logits, torch.tensor([0, 20, 7]), 0.0, grades=True)[0], "exact")


def test_large_logits_neither_overflow_nor_vanish() -> None:
    logits = torch.tensor([[0.0] * 31 + [2.9e4, 3e4, -3e4]])
    loss, grad = run(logits, torch.tensor([32]), 0.0, grades=True)
    assert_close(loss, [0.5 * 3e4**2], "fp32")
    assert_close(grad, [[0.0] * 32 + [3e4, 0.0]], "fp32")


@pytest.mark.parametrize("target", [-1, 20, 10**12])
def test_a_target_outside_the_range_gives_nan(target: int) -> None:
    loss, _ = run(torch.randn(2, 20), torch.tensor([3, target]), 0.0, grades=True)
    assert loss.isnan().tolist() == [False, True]


def test_no_rows_launch_nothing() -> None:
    loss, grad = run(torch.zeros(0, 20), torch.zeros(0, dtype=torch.int64), 0.0, grades=True)
    assert loss.shape == (0,)
    assert grad.shape == (0, 20)


def test_rows_that_are_not_aligned_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of 20 numbers"):
        softmax_(torch.zeros(2, 20), torch.zeros(2).long(), torch.zeros(2), 0.0, 0.0, True)


@pytest.mark.parametrize("launch", [NARROW, WIDE])
def test_shipped_configurations_agree(launch: Launch) -> None:
    logits, target = torch.randn(2, 1500, dtype=torch.float64), torch.tensor([0, 1499])
    for made, right in zip(
        run(logits, target, 0.125, grades=True, launch=launch),
        run(logits, target, 0.125, grades=True, launch=Launch(2048, 4)),
        strict=True,
    ):
        assert_close(made, right, "fp64")


def test_every_configuration_is_built_ahead_of_time() -> None:
    blocks = {(build.constants["BLOCK"], build.constants["GRADES"]) for build in builds(90)}
    assert blocks == {(launch.block, grades) for launch in (NARROW, WIDE) for grades in (0, 1)}


def test_rows_at_once_are_whole_tiles() -> None:
    assert rows_at_once(1 << 17) == 2048
    assert rows_at_once(10**9) == 128
    assert rows_at_once(1000) % 128 == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("outputs", [513, 16385, 131_072])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_real_sizes(problem: Make, outputs: int, dtype: torch.dtype) -> None:
    made = problem(700, outputs, 256, dtype)
    h_KD, weight_VD = ((x.detach() / 4).cuda().requires_grad_() for x in made[:2])
    target_K = made[2].cuda()
    loss = linear_cross_entropy(h_KD, weight_VD, target_K, label_smoothing=0.1, z_loss=1e-4)
    wide_KD, wide_VD = (x.detach().double().requires_grad_() for x in (h_KD, weight_VD))
    expected = reference_linear_cross_entropy(wide_KD, wide_VD, target_K, 0.1, 1e-4)
    kind = "fp32" if dtype is torch.float32 else "bf16"
    assert_close(loss, expected, kind)
    found = torch.autograd.grad(loss, (h_KD, weight_VD))
    right = torch.autograd.grad(expected, (wide_KD, wide_VD))
    for grad, one in zip(found, right, strict=True):
        assert_close(1 + (grad.double() - one).norm() / one.norm(), 1.0, kind)
