import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal_kernels.gated.cpu import LEAST, Gated, gated, pays


def test_backward_keeps_the_inputs_alone() -> None:
    sizes: list[int] = []
    gate, up = (torch.randn(8, 32, requires_grad=True) for _ in range(2))

    def pack(x: Tensor) -> Tensor:
        sizes.append(x.untyped_storage().data_ptr())
        return x

    counts = []
    for activation in (Gated.apply, lambda gate, up: F.silu(gate) * up):
        sizes.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            activation(gate, up)
        counts.append(len(set(sizes)))
    assert counts == [2, 3]


def test_inputs_are_left_as_they_were() -> None:
    gate, up = (torch.randn(8, 32, requires_grad=True) for _ in range(2))
    before = gate.detach().clone(), up.detach().clone()
    grad = torch.randn(8, 32)
    given = grad.clone()
    Gated.apply(gate, up).backward(grad)
    assert torch.equal(gate.detach(), before[0])
    assert torch.equal(up.detach(), before[1])
    assert torch.equal(grad, given)


def test_it_pays_for_much_in_full_precision() -> None:
    assert pays(torch.zeros(LEAST))
    assert not pays(torch.zeros(LEAST - 1))
    assert not pays(torch.zeros(LEAST, dtype=torch.bfloat16))


def test_without_gradients_one_tensor_is_made() -> None:
    gate, up = torch.randn(8, 32), torch.randn(8, 32)
    expected = F.silu(gate) * up
    before = up.clone()
    assert torch.equal(gated(gate, up), expected)
    assert torch.equal(up, before)
    with torch.inference_mode():
        assert torch.equal(gated(gate.requires_grad_(), up), expected)
