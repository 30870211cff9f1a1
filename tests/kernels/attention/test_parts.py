"""What is dropped is what the reference drops, whatever the tiles."""
# pyright: reportMissingParameterType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from trimodal_kernels.attention.parts import distances, kept
from trimodal_kernels.philox import uniform

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Kernel = Callable[..., Any]


@triton.jit
def _write_kept(OUT, row, column, head, seed, dropout, M: tl.constexpr, N: tl.constexpr):  # noqa: ANN001, ANN202
    rows_M, keys_N = row + tl.arange(0, M), column + tl.arange(0, N)
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(OUT + at, kept(rows_M, keys_N, head, seed, dropout).to(tl.int32))


@triton.jit
def _write_distances(OUT, POSITION, size, reach, M: tl.constexpr):  # noqa: ANN001, ANN202
    rows_M = tl.arange(0, M)
    at = rows_M[:, None] * M + rows_M[None, :]
    tl.store(OUT + at, distances(POSITION, rows_M, rows_M < size, rows_M, rows_M < size, reach))


@pytest.mark.parametrize("seed", [0, 5, 3 << 33])
@pytest.mark.parametrize(("row", "column", "head"), [(0, 0, 0), (100_000, 7, 3)])
def test_what_is_kept_is_what_the_reference_keeps(
    seed: int, row: int, column: int, head: int
) -> None:
    made = torch.full((16, 32), -1, dtype=torch.int32, device=DEVICE)
    kernel: Any = _write_kept
    kernel[1,](made, row, column, head, seed, 0.3, M=16, N=32)
    rows, columns = torch.arange(16)[:, None] + row, torch.arange(32) + column
    wanted = uniform(seed, rows, columns, torch.tensor(head)) >= 0.3
    assert torch.equal(made.cpu().bool(), wanted)
    assert 0.5 < wanted.float().mean() < 0.9


def test_distances_are_clipped_either_way() -> None:
    position = torch.tensor([0, 1, 2, 9, 10, 11, 12, 13] * 2, dtype=torch.int32, device=DEVICE)
    made = torch.empty(16, 16, dtype=torch.int32, device=DEVICE)
    kernel: Any = _write_distances
    kernel[1,](made, position, 16, 2, M=16)
    apart = (position - position[:, None]).clamp(-2, 2) + 2
    assert torch.equal(made, apart.int())
