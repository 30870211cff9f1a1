"""The Triton kernels against plain torch, in the interpreter or on a GPU."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trimodal.testing import assert_close
from trimodal_kernels import info_nce_two_sided, sigmoid_contrast
from trimodal_kernels.contrastive import backward as module
from trimodal_kernels.contrastive import forward as forward_module
from trimodal_kernels.contrastive import reference
from trimodal_kernels.contrastive.backward import backward, builds
from trimodal_kernels.contrastive.forward import forward
from trimodal_kernels.contrastive.pairs import Gradients, Pairs
from trimodal_kernels.contrastive.tiles import Tile

TILE = Tile(16, 16, 16, 1, 1)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Weights = Callable[[Pairs], tuple[Tensor, Tensor]]


def run(
    pairs: Pairs, grads: tuple[Tensor, Tensor], tile: Tile | None = TILE, block: int = 32
) -> Gradients:
    tensors = {name: x.to(DEVICE) for name, x in pairs._asdict().items() if isinstance(x, Tensor)}
    there = pairs._replace(**tensors)
    _, _, state_2N, state_2M = forward(there, tile, block)
    grad_N, grad_M = (x.to(DEVICE) for x in grads)
    found = backward(there, grad_N, grad_M, state_2N, state_2M, tile, block)
    return Gradients(*(x.cpu() for x in found))


@pytest.mark.parametrize("sizes", [(1, 1), (16, 16), (15, 17), (33, 18), (0, 3), (3, 0)])
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize(("both", "masked"), [(False, True), (True, False)])
def test_tiles_are_all_at_once(
    problem: Callable[..., Pairs],
    weights: Weights,
    poisoned: None,
    sizes: tuple[int, int],
    sigmoid: bool,
    both: bool,
    masked: bool,
) -> None:
    dtype = torch.float64 if DEVICE == "cpu" else torch.float32
    pairs = problem(*sizes, both=both, masked=masked, sigmoid=sigmoid, dtype=dtype)
    grads = weights(pairs)
    for x, y in zip(run(pairs, grads), reference.backward(pairs, *grads), strict=True):
        assert x.dtype is y.dtype
        assert_close(x, y, "fp64" if DEVICE == "cpu" else "fp32-gradient")


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_sharp_logits(
    problem: Callable[..., Pairs], weights: Weights, dtype: torch.dtype, sigmoid: bool
) -> None:
    pairs = problem(20, 18, both=True, sigmoid=sigmoid, scale=50.0, dtype=dtype)
    grads = weights(pairs)
    kind = "bf16" if dtype is torch.bfloat16 else "fp32-gradient"
    for x, y in zip(run(pairs, grads), reference.backward(pairs, *grads), strict=True):
        assert_close(x / pairs.scale, y / pairs.scale, kind)


def test_gradcheck_of_the_kernels(interpreted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cuda":
        return  # no float64 there
    for place in (module, forward_module):
        monkeypatch.setattr(place, "tile_for", lambda _: TILE)
    monkeypatch.setattr(module, "BLOCK", 16)
    a, b = (torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for n in (2, 3))
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (3.0, -1.0))
    groups = torch.tensor([5, 8]), torch.tensor([8, 8, 2])
    assert torch.autograd.gradcheck(
        lambda a, b, s: info_nce_two_sided(a, b, *groups, s), (a, b, scale), fast_mode=True
    )
    assert torch.autograd.gradcheck(
        lambda a, b, s, t: sigmoid_contrast(a, b, *groups, s, t),
        (a, b, scale, bias),
        fast_mode=True,
    )


def test_a_row_without_a_candidate_has_no_gradient(problem: Callable[..., Pairs]) -> None:
    pairs = problem(5, 7, dtype=torch.float32)
    nothing = torch.zeros(7, dtype=torch.bool)
    pairs = pairs._replace(column_M=nothing, count_N=torch.zeros_like(pairs.count_N))
    found = run(pairs, (torch.ones(5), torch.ones(0)))
    assert not any(x.any() for x in found)


def test_the_same_in_every_run(problem: Callable[..., Pairs], weights: Weights) -> None:
    for sigmoid in (False, True):
        pairs = problem(20, 17, both=True, sigmoid=sigmoid, dtype=torch.float32)
        grads = weights(pairs)
        runs = run(pairs, grads), run(pairs, grads)
        assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))


def test_everything_that_is_shipped_is_built() -> None:
    names = [build.name for build in builds(90)]
    assert len(set(names)) == len(names)
    assert {name.split("[")[0] for name in names} == {
        "contrastive.softmax_gradient",
        "contrastive.sigmoid_gradient",
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(1000, 5000), (4097, 127)])
def test_shipped_tiles_at_real_sizes(
    problem: Callable[..., Pairs],
    weights: Weights,
    sizes: tuple[int, int],
    dtype: torch.dtype,
    sigmoid: bool,
) -> None:
    for both, masked in ((True, False), (False, True)):
        pairs = problem(
            *sizes, both=both, masked=masked, sigmoid=sigmoid, width=200, scale=50, dtype=dtype
        )
        grads = weights(pairs)
        found = run(pairs, grads, tile=None, block=4096)
        exact = pairs._replace(a_NE=pairs.a_NE.double(), b_ME=pairs.b_ME.double())
        for x, y in zip(found, reference.backward(exact, *grads), strict=True):
            error = (x.double() - y).norm() / y.norm().clamp_min(1e-9)
            assert error < (1e-2 if dtype is torch.bfloat16 else 1e-4)
        again = run(pairs, grads, tile=None, block=4096)
        assert all(torch.equal(x, y) for x, y in zip(found, again, strict=True))
