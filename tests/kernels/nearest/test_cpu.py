import pytest
import torch
import torch.nn.functional as F

from trimodal_kernels.nearest import cpu
from trimodal_kernels.nearest.reference import reference_nearest


@pytest.mark.parametrize("numbers", [1, 400, 1200, 1 << 18])
def test_rows_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    monkeypatch.setattr(cpu, "NUMBERS", numbers)
    x_TD = torch.randn(7, 16, dtype=torch.float64)
    codebooks_CKD = F.normalize(torch.randn(3, 100, 16, dtype=torch.float64), dim=-1)
    found = cpu.chunked_nearest(x_TD, codebooks_CKD)
    assert torch.equal(found, reference_nearest(x_TD, codebooks_CKD))
