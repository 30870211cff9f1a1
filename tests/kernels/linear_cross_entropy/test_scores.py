import torch
import torch.nn.functional as F

from trimodal.testing import assert_close
from trimodal_kernels import Scores


def test_logits_are_the_product() -> None:
    h, weight = torch.randn(3, 2, 4), torch.randn(7, 4)
    assert_close(Scores.of(h, weight).logits(), h @ weight.T, "exact")
    half = Scores.of(h.bfloat16(), weight.bfloat16()).logits()
    assert half.dtype is torch.float32


def test_the_loss_is_that_of_the_logits() -> None:
    h, weight, target = torch.randn(3, 2, 4), torch.randn(7, 4), torch.randint(7, (3, 2))
    scores = Scores.of(h, weight)
    expected = F.cross_entropy(
        scores.logits().flatten(0, 1), target.flatten(), reduction="sum", label_smoothing=0.1
    )
    assert_close(scores.cross_entropy(target, 0.1), expected, "fp32")


def test_the_type_is_that_of_autocast_where_they_are_made() -> None:
    h, weight = torch.randn(3, 4), torch.randn(7, 4)
    with torch.autocast("cpu", torch.bfloat16):
        scores = Scores.of(h, weight)
        right = F.linear(h, weight)
        assert Scores.of(h.double(), weight.double()).h_KD.dtype is torch.float64
    assert scores.h_KD.dtype is torch.bfloat16
    assert scores.weight_VD is weight
    assert_close(scores.logits(), right, "exact")
