"""Small problems, and memory that holds NaN until something is written to it.

loss = linear_cross_entropy(*problem(5, 37, 8))
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

Problem = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def problem() -> Callable[..., Problem]:
    """Rows, weight and targets of sizes K, V, D."""

    def made(size: int, outputs: int, width: int, dtype: torch.dtype = torch.float64) -> Problem:
        h_KD = torch.randn(size, width, dtype=torch.float64).to(dtype).requires_grad_()
        weight_VD = torch.randn(outputs, width, dtype=torch.float64).to(dtype).requires_grad_()
        return h_KD, weight_VD, torch.randint(outputs, (size,))

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
