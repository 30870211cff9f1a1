"""Small problems, and memory that holds NaN until something is written to it.

pairs = problem(5, 7, both=True, sigmoid=False)
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal_kernels.contrastive.pairs import Pairs, accumulator, positives, ranks


@pytest.fixture
def problem() -> Callable[..., Pairs]:
    """Rows and columns of a few groups, some of them on one side alone."""

    def made(
        rows: int,
        columns: int,
        *,
        both: bool = False,
        sigmoid: bool = False,
        masked: bool = False,
        width: int = 20,
        scale: float = 9.0,
        dtype: torch.dtype = torch.float64,
    ) -> Pairs:
        a_NE, b_ME = (
            F.normalize(torch.randn(size, width, dtype=torch.float64), dim=1).to(dtype)
            for size in (rows, columns)
        )
        id_N, id_M = ranks(torch.randint(5, (rows,)) << 60, torch.randint(1, 6, (columns,)) << 60)
        row_N = torch.rand(rows) < 0.7 if masked and both else None
        column_M = torch.rand(columns) < 0.7 if masked else None
        count_N = positives(id_N, id_M, column_M)
        count_M = positives(id_M, id_N, row_N) if both else count_N[:0]
        exact = accumulator(dtype)
        bias = torch.tensor(-2.0, dtype=exact) if sigmoid else None
        return Pairs(
            a_NE, b_ME, id_N, id_M, count_N, count_M, row_N, column_M,
            torch.tensor(scale, dtype=exact), bias, both,
        )  # fmt: skip

    return made


@pytest.fixture
def weights() -> Callable[[Pairs], tuple[Tensor, Tensor]]:
    """Gradients of the losses of rows and of columns, of both signs."""

    def made(pairs: Pairs) -> tuple[Tensor, Tensor]:
        rows, columns = len(pairs.a_NE), len(pairs.b_ME) if pairs.both else 0
        return torch.randn(rows, dtype=pairs.exact), torch.randn(columns, dtype=pairs.exact)

    return made


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allocated without being written holds NaN."""

    def poisoning(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*args: Any, **kwargs: Any) -> Tensor:
            empty = allocate(*args, **kwargs)
            return empty.fill_(float("nan")) if empty.is_floating_point() else empty

        return made

    monkeypatch.setattr(torch, "empty", poisoning(torch.empty))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoning(torch.Tensor.new_empty))
