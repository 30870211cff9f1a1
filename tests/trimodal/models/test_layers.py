import torch

from trimodal.batch import Medium, Modality, TokenBatch, pack_media
from trimodal.config import TransformerConfig
from trimodal.models.layers import Transformer, rotary_angles
from trimodal.testing import assert_close
from trimodal_kernels import turn


def tokens(lengths: list[int]) -> TokenBatch:
    return pack_media(
        [Medium(Modality.TEXT, torch.zeros(n, dtype=torch.int64), n, (n, 1)) for n in lengths]
    ).tokens


def turned(x: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return turn(x, None, *angles, 0.0)


def test_rotary_scores_depend_on_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 16, dtype=torch.float64)

    def score(a: tuple[int, int], b: tuple[int, int]) -> torch.Tensor:
        cos, sin = (x.double() for x in rotary_angles(torch.tensor([a, b]), 16, 100.0))
        return (turned(q, (cos[:1], sin[:1])) * turned(k, (cos[1:], sin[1:]))).sum()

    assert_close(score((2, 3), (5, 9)), score((12, 0), (15, 6)), "fp32")
    assert abs(float(score((2, 3), (5, 9)) - score((2, 3), (9, 5)))) > 1e-3


def test_rotation_keeps_norms() -> None:
    x = torch.randn(4, 2, 16)
    angles = rotary_angles(torch.tensor([[0, 0], [1, 1], [5, 2], [900, 31]]), 16, 10_000.0)
    assert_close(turned(x, angles).norm(dim=-1), x.norm(dim=-1), "fp32")
    assert_close(turned(x, angles)[0], x[0], "exact")


def test_a_segment_is_the_same_alone_and_packed() -> None:
    stack = Transformer(TransformerConfig(width=32, depth=2, num_heads=2))
    x = torch.randn(12, 32)
    packed = stack(x, tokens([1, 7, 4]))
    alone = torch.cat(
        [stack(x[:1], tokens([1])), stack(x[1:8], tokens([7])), stack(x[8:], tokens([4]))]
    )
    assert_close(packed, alone, "packed-vs-alone-fp32")


def test_order_matters_within_a_segment() -> None:
    stack = Transformer(TransformerConfig(width=32, depth=1, num_heads=2))
    x = torch.randn(5, 32)
    assert not torch.allclose(
        stack(x.flip(0), tokens([5])).flip(0), stack(x, tokens([5])), atol=1e-3
    )


def test_gradients_reach_the_input_of_the_own_segment_only() -> None:
    stack = Transformer(TransformerConfig(width=32, depth=2, num_heads=2))
    x = torch.randn(9, 32, requires_grad=True)
    stack(x, tokens([4, 5]))[:4].square().sum().backward()
    assert x.grad is not None
    assert x.grad[:4].abs().sum() > 0
    assert not x.grad[4:].any()
