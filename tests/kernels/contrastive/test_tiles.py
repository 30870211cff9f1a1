# ruff: noqa: ANN001, ANN201 - the arguments of kernels have Triton's types
# pyright: reportMissingParameterType=false, reportCallIssue=false

import numpy as np
import torch
import triton
import triton.language as tl

from trimodal.testing import assert_close
from trimodal_kernels.contrastive.tiles import Tile, constants, products, quarters, shipped

TILE = Tile(16, 32, 16, 1, 1)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@triton.jit
def write_tile(
    A, B, OUT, num_rows, num_columns, E: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, ACC: tl.constexpr, UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    rows_R, columns_C = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_C)
    tile_RC = products(
        A, B, rows_R, columns_C, num_rows, num_columns, E, BLOCK_R, BLOCK_C, BLOCK_K, ACC, UPCAST,
        PRECISION,
    )  # fmt: skip
    parts = quarters(tile_RC, BLOCK_R, BLOCK_C)
    for i in tl.static_range(4):
        at_C = i * (BLOCK_C // 4) + tl.arange(0, BLOCK_C // 4)
        tl.store(OUT + rows_R[:, None] * BLOCK_C + at_C[None, :], parts[i])


def test_quarters_of_a_tile_of_products_lie_from_left_to_right() -> None:
    for width in (16, 20, 7, 33):
        a, b = (torch.randn(n, width, dtype=torch.float32, device=DEVICE) for n in (13, 30))
        out = torch.full((16, 32), float("nan"), device=DEVICE)
        write_tile[(1,)](a, b, out, 13, 30, **constants(a, TILE))
        expected = torch.zeros(16, 32)
        expected[:13, :30] = (a.double() @ b.double().T).cpu()
        assert_close(out, expected, "fp32")


def test_a_grid_covers_everything_once() -> None:
    assert TILE.grid(16, 32) == (1, 1)
    assert TILE.grid(17, 33) == (2, 2)
    assert TILE.grid(0, 1) == (0, 1)


def test_every_shipped_tile_divides_a_block_of_the_gradient() -> None:
    from trimodal_kernels.contrastive.backward import BLOCK

    for _, settings in shipped():
        assert np.gcd(BLOCK, settings["tile"].rows) == settings["tile"].rows
        assert np.gcd(BLOCK, settings["tile"].columns) == settings["tile"].columns
