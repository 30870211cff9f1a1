"""The Triton kernels against plain torch, in the interpreter or on a GPU."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trimodal.testing import assert_close
from trimodal_kernels.contrastive import reference
from trimodal_kernels.contrastive.forward import builds, forward, merge
from trimodal_kernels.contrastive.pairs import Losses, Pairs
from trimodal_kernels.contrastive.tiles import Tile

TILE = Tile(16, 16, 16, 1, 1)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def run(pairs: Pairs, tile: Tile | None = TILE, rows: int = 32) -> Losses:
    tensors = {name: x.to(DEVICE) for name, x in pairs._asdict().items() if isinstance(x, Tensor)}
    there = pairs._replace(**tensors)
    return Losses(*(x.cpu() for x in forward(there, tile, rows)))


@pytest.mark.parametrize("sizes", [(1, 1), (16, 16), (15, 17), (33, 18), (0, 3), (3, 0)])
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize(("both", "masked"), [(False, True), (True, False)])
def test_tiles_are_all_at_once(
    problem: Callable[..., Pairs],
    poisoned: None,
    sizes: tuple[int, int],
    sigmoid: bool,
    both: bool,
    masked: bool,
) -> None:
    dtype = torch.float64 if DEVICE == "cpu" else torch.float32
    pairs = problem(*sizes, both=both, masked=masked, sigmoid=sigmoid, dtype=dtype)
    found, expected = run(pairs), reference.forward(pairs)
    for x, y in zip(found[:2], expected[:2], strict=True):
        assert x.dtype is y.dtype
        assert_close(x, y, "fp64" if DEVICE == "cpu" else "fp32-gradient")


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("scale", [9.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_of_32_bits(
    problem: Callable[..., Pairs], dtype: torch.dtype, scale: float, sigmoid: bool
) -> None:
    pairs = problem(20, 18, both=True, sigmoid=sigmoid, scale=scale, dtype=dtype)
    for x, y in zip(run(pairs)[:2], reference.forward(pairs)[:2], strict=True):
        assert_close(x, y, "fp32-gradient")


def test_a_sure_positive_costs_nothing() -> None:
    """A lone positive that is the largest logit leaves no rounding behind."""
    a_NE = torch.eye(20).roll(1, 0)
    ids, count = torch.arange(20, dtype=torch.int32), torch.ones(20, dtype=torch.int64)
    scale = torch.tensor(97.3)
    pairs = Pairs(a_NE, a_NE, ids, ids, count, count, None, None, scale, None, both=True)
    losses = run(pairs)
    assert not losses.loss_N.any()
    assert not losses.loss_M.any()


def test_a_small_loss_is_exact() -> None:
    """Of logits of -78 and 78, far below the rounding of 1 and of 78."""
    one = torch.ones(1, 1)
    for sign, ids in ((1, [0]), (-1, [1])):
        id_N, id_M = (torch.tensor(x, dtype=torch.int32) for x in ([0], ids))
        count = (id_N == id_M).to(torch.int64)
        scale, bias = torch.tensor(sign * 80.0), torch.tensor(sign * -2.0)
        pairs = Pairs(one, one, id_N, id_M, count, count[:0], None, None, scale, bias, both=False)
        expected = torch.tensor([-78.0], dtype=torch.float64).exp()
        assert_close(run(pairs).loss_N / expected, torch.ones(1), "fp32")


def test_what_is_merged_is_independent_of_the_cut() -> None:
    """Some tiles have found nothing."""
    logits = torch.randn(40, 3, 5, dtype=torch.float64, device=DEVICE) * 9
    logits[3] = logits[:, 1, 2] = -torch.inf
    top, along = logits.amax(1), torch.randn(40, 5, dtype=torch.float64, device=DEVICE)
    total = (logits - top.masked_fill(top == -torch.inf, 0)[:, None]).exp2().sum(1)
    parts = torch.stack([top, total, along])
    states = torch.zeros(2, 3, 9, dtype=torch.float64, device=DEVICE)
    states[:, 0] = -torch.inf
    merge(parts, states[0, :, 2:7])
    merge(parts[:, :13].contiguous(), states[1, :, 2:7])
    merge(parts[:, 13:].contiguous(), states[1, :, 2:7])
    assert_close(states[0], states[1], "fp64")
    everything = logits.flatten(0, 1)
    found = states[0, 0] + states[0, 1].log2()
    assert_close(found[2:7].exp2(), everything.exp2().sum(0), "fp64")
    assert_close(states[0, 2, 2:7], along.sum(0), "fp64")
    assert (states[0, 0, [0, 1, 7, 8]] == -torch.inf).all()


def test_the_same_in_every_run(problem: Callable[..., Pairs]) -> None:
    for sigmoid in (False, True):
        pairs = problem(20, 17, both=True, sigmoid=sigmoid, dtype=torch.float32)
        assert all(torch.equal(x, y) for x, y in zip(run(pairs), run(pairs), strict=True))


def test_everything_that_is_shipped_is_built() -> None:
    names = [build.name for build in builds(90)]
    assert len(set(names)) == len(names)
    assert {name.split("[")[0] for name in names} == {
        "contrastive.softmax_tiles",
        "contrastive.sigmoid_tiles",
        "contrastive.softmax_merge",
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(1000, 5000), (4097, 127)])
def test_shipped_tiles_at_real_sizes(
    problem: Callable[..., Pairs], sizes: tuple[int, int], dtype: torch.dtype, sigmoid: bool
) -> None:
    for both, masked in ((True, False), (False, True)):
        pairs = problem(
            *sizes, both=both, masked=masked, sigmoid=sigmoid, width=200, scale=50, dtype=dtype
        )
        wide = pairs._replace(a_NE=pairs.a_NE.double(), b_ME=pairs.b_ME.double())
        expected = reference.losses(wide)
        found = run(pairs, tile=None, rows=4096)
        for x, y in zip(found[:2], expected, strict=True):
            assert_close(x, y, "fp32-gradient")
        again = run(pairs, tile=None, rows=4096)
        assert all(torch.equal(x, y) for x, y in zip(found, again, strict=True))
