"""Pictures: how they become patches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from trimodal.batch import Modality
from trimodal.config import VisionInputConfig
from trimodal.processors import vision
from trimodal.processors.vision import VisionProcessor
from trimodal.testing import assert_close

PROCESSOR = VisionProcessor(VisionInputConfig(patch_size=4, max_tokens=64))


def _pixels(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    """Of one pixel, too, where no axis moves."""
    for size in ((6, 9), (1, 1)):
        pixels = _pixels(*size)
        path = tmp_path / "picture.png"
        Image.fromarray(pixels).save(path)
        decoded = PROCESSOR.decode(path)
        assert decoded.permute(1, 2, 0).tolist() == pixels.tolist()
        decoded.zero_()
        assert PROCESSOR.decode(pixels).permute(1, 2, 0).tolist() == pixels.tolist()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 2), (1, 5), (7, 3), (8, 8)])
def test_a_picture_of_whole_patches_is_cut_exactly(rows: int, columns: int) -> None:
    pixels = _pixels(rows * 4, columns * 4)
    medium = PROCESSOR.medium(PROCESSOR.decode(pixels))
    assert medium.modality is Modality.VISION
    assert medium.grid == (rows, columns)
    assert medium.num_tokens == rows * columns
    assert medium.features.shape == (rows * columns, PROCESSOR.patch_dim)
    assert np.array_equal(PROCESSOR.picture(medium.features, medium.grid), pixels)


def test_patches_are_in_reading_order() -> None:
    image = torch.zeros(3, 8, 12, dtype=torch.uint8)
    image[0, 0:4, 8:12] = 255
    features = PROCESSOR.medium(image).features
    assert features[2].view(3, 16)[0].tolist() == [1.0] * 16
    assert features.sum() == features.numel() * -1 + 2 * 16


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [(1, 1, (1, 1)), (5, 4, (1, 1)), (7, 9, (2, 2)), (4, 31, (1, 8)), (30, 30, (8, 8))],
)
def test_other_sizes_go_to_the_nearest_patch(
    height: int, width: int, grid: tuple[int, int]
) -> None:
    medium = PROCESSOR.medium(PROCESSOR.decode(_pixels(height, width)))
    assert medium.grid == grid
    assert bool(medium.features.isfinite().all())


@pytest.mark.parametrize(
    ("height", "width"),
    [(33, 33), (320, 320), (64, 640), (640, 64), (4, 4000), (4000, 4), (1, 100_000), (500, 333)],
)
def test_a_large_picture_keeps_its_shape_within_the_limit(height: int, width: int) -> None:
    rows, columns = PROCESSOR.grid(height, width)
    assert rows >= 1
    assert columns >= 1
    assert rows * columns <= 64
    if min(height, width) / max(height, width) > 1 / 16:
        assert rows * columns > 32
        assert rows / columns == pytest.approx(height / width, rel=0.35)


@pytest.mark.parametrize(
    ("height", "width"),
    [(33, 45), (500, 333), (3, 2), (3, 8), (8, 5), (13, 50), (9000, 1), (1, 9000)],
)
def test_any_other_picture_is_resized_once(height: int, width: int) -> None:
    image = PROCESSOR.decode(_pixels(height, width))
    medium = PROCESSOR.medium(image)
    size = [4 * side for side in medium.grid]
    once = transforms.resize(image, size, InterpolationMode.BICUBIC, antialias=True)
    shown = PROCESSOR.picture(medium.features, medium.grid)
    assert np.array_equal(shown, once.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("is_tall", [False, True])
def test_a_thread_of_a_picture_is_shortened_before_it_is_stretched(
    is_tall: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    def resize(image: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        shapes.append(image.shape)
        return resize_any(image, *args, **kwargs)

    resize_any = vision.interpolate
    monkeypatch.setattr(vision, "interpolate", resize)
    length = 2 * vision.LONGEST_SIDE + 1
    pixels = np.full((1, length), 200, dtype=np.uint8)
    pixels[:, : length // 2] = 50
    medium = PROCESSOR.medium(PROCESSOR.decode(pixels.T if is_tall else pixels))
    assert medium.grid == ((64, 1) if is_tall else (1, 64))
    shown = PROCESSOR.picture(medium.features, medium.grid)
    shown = shown.swapaxes(0, 1) if is_tall else shown
    assert bool((shown[:, :124] == 50).all())
    assert bool((shown[:, 132:] == 200).all())
    assert [max(shape) for shape in shapes] == [length // 3]


def test_stretching_keeps_a_flat_colour() -> None:
    medium = PROCESSOR.medium(torch.full((3, 13, 50), 100, dtype=torch.uint8))
    assert_close(medium.features, torch.full_like(medium.features, 100 / 127.5 - 1), "fp32")
