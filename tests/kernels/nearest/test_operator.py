import pytest
import torch

from trimodal_kernels.dispatch import VARIABLE
from trimodal_kernels.nearest import operator


@pytest.mark.parametrize("path", ["auto", "reference", "triton"])
def test_it_is_registered_as_torch_wants(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv(VARIABLE, path)
    torch.library.opcheck(operator, (torch.randn(5, 16), torch.randn(2, 20, 16)))
