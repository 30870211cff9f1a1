import pytest
import torch

from trimodal_kernels.gated.operator import gated, gated_backward


@pytest.mark.usefixtures("interpreted")
def test_they_are_registered_as_torch_wants() -> None:
    gate, up, grad = (torch.randn(3, 8) for _ in range(3))
    torch.library.opcheck(gated, (gate.requires_grad_(), up.requires_grad_()))
    torch.library.opcheck(gated, (torch.randn(8, 3).T, up))
    torch.library.opcheck(gated_backward, (gate.detach(), up.detach(), grad))
