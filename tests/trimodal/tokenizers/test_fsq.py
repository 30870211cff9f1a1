import math

import pytest
import torch

from trimodal.testing import assert_close
from trimodal.tokenizers.fsq import FSQ, perplexity, usage

LEVELS = [(8, 6, 5), (8, 5, 5, 5), (3,), (2, 2), (7, 4)]


@pytest.mark.parametrize("levels", LEVELS)
def test_every_code_has_a_value_of_its_own_and_comes_back(levels: tuple[int, ...]) -> None:
    quantizer = FSQ(levels)
    codes = torch.arange(math.prod(levels))
    values = quantizer.values(codes)
    assert len(values.unique(dim=0)) == quantizer.size == len(codes)
    assert values.abs().max() <= 1
    # a latent that is bounded to exactly that level
    wanted = values * quantizer.scale_D
    shift = torch.atanh(quantizer.offset_D / quantizer.half_D)
    latent = torch.atanh((wanted + quantizer.offset_D) / quantizer.half_D) - shift
    quantized, found = quantizer(latent)
    assert torch.equal(found, codes)
    assert_close(quantized, values, "fp32")


@pytest.mark.parametrize("levels", LEVELS)
def test_latents_of_any_size_give_codes_in_range(levels: tuple[int, ...]) -> None:
    quantizer = FSQ(levels)
    latent = (
        torch.randn(4000, len(levels)) * torch.tensor([0.1, 1.0, 10.0, 1e4]).repeat(1000)[:, None]
    )
    values, codes = quantizer(latent)
    assert codes.dtype is torch.int64
    assert (int(codes.min()), int(codes.max())) == (0, quantizer.size - 1)
    assert_close(quantizer.values(codes), values, "fp32")


def test_zero_is_a_level_and_even_levels_reach_one_further_down() -> None:
    values, _ = FSQ((5, 4))(torch.tensor([[0.0, 0.0], [9.0, 9.0], [-9.0, -9.0]]))
    assert_close(values, [[0, 0], [1, 0.5], [-1, -1]], "fp32")


def test_gradients_pass_the_rounding() -> None:
    quantizer = FSQ((5, 4))
    latent = torch.randn(7, 2, requires_grad=True)
    values, _ = quantizer(latent)
    [through] = torch.autograd.grad(values.sum(), latent)
    [smooth] = torch.autograd.grad((quantizer.bound(latent) / quantizer.scale_D).sum(), latent)
    assert_close(through, smooth, "fp32")
    assert (through > 0).all()


def test_usage_and_perplexity_by_hand() -> None:
    assert usage(torch.tensor([3, 0, 1, 0])) == 0.5
    assert perplexity(torch.tensor([5, 5, 5, 5])) == pytest.approx(4)
    assert perplexity(torch.tensor([0, 9])) == pytest.approx(1)
    assert perplexity(torch.tensor([3, 1])) == pytest.approx(4 / 3**0.75)
    assert perplexity(torch.zeros(4, dtype=torch.int64)) == 0
