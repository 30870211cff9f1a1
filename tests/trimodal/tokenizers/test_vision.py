import pytest
import torch

from trimodal.errors import DataError
from trimodal.testing import assert_close
from trimodal.tokenizers import VisionTokenizer, VisionTokenizerConfig


def test_codes_of_any_size_are_a_grid_and_decode_to_the_pixels_of_forward(
    vision: VisionTokenizer,
) -> None:
    for size in [(4, 4), (8, 12), (20, 4)]:
        pixels = torch.rand(3, 3, *size) * 2 - 1
        codes = vision.encode(pixels)
        assert codes.shape == (3, size[0] // 4, size[1] // 4)
        assert codes.dtype is torch.int64
        reconstructed, same, _ = vision(pixels)
        assert torch.equal(same, codes)
        assert_close(vision.decode(codes), reconstructed.clamp(-1, 1), "fp32")
    assert len(vision.encode(torch.randn(64, 3, 8, 8)).unique()) > 20


def test_gradients_reach_every_weight(vision: VisionTokenizer) -> None:
    pixels, *_ = vision(torch.randn(4, 3, 8, 8))
    pixels.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vision.parameters())


@pytest.mark.parametrize("size", [(6, 8), (8, 9), (0, 4), (3, 3)])
def test_a_side_that_is_no_multiple_is_refused(
    vision: VisionTokenizer, size: tuple[int, int]
) -> None:
    message = f"image of {size[0]} x {size[1]} pixels .* must be multiples of 4"
    with pytest.raises(DataError, match=message):
        vision.encode(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("code", [-1, 60])
def test_a_code_that_does_not_exist_is_refused(vision: VisionTokenizer, code: int) -> None:
    with pytest.raises(DataError, match=r"codes must lie in 0 \.\. 59"):
        vision.decode(torch.full((1, 2, 2), code))


@pytest.mark.parametrize(("strides", "side"), [((7,), 28), ((2, 2), 28), ((2,), 8)])
def test_sizes_of_the_digits(strides: tuple[int, ...], side: int) -> None:
    config = VisionTokenizerConfig(levels=(8, 6, 5), strides=strides, width=8, depth=1)
    codes = VisionTokenizer(config).encode(torch.zeros(1, 3, side, side))
    assert codes.shape == (1, side // config.stride, side // config.stride)
