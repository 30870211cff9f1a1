"""Pictures of any size to patches at their native size.

medium = processor.medium(processor.decode("cat.jpg"))
"""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from trimodal.batch import Medium, Modality
from trimodal.config import VisionInputConfig
from trimodal.media import picture
from trimodal.storage import ShardFile

ImageSource = str | Path | ShardFile | bytes | Image.Image | np.ndarray
LONGEST_SIDE = 1_000_000


def _shortened(image: Tensor) -> Tensor:
    """A picture with no side above LONGEST_SIDE, by averages of whole numbers of pixels.

    A resize takes 32 bytes a pixel of a side for its weights, and stretches a width of one pixel
    to a patch before it shrinks the height.
    """
    factors = [-(-side // LONGEST_SIDE) for side in image.shape[1:]]
    if max(factors) == 1:
        return image
    means = [avg_pool2d(plane[None].float(), factors, ceil_mode=True) for plane in image]
    return torch.cat(means).round().to(torch.uint8)


class VisionProcessor:
    """Decodes under limits and cuts into patches; the numbers depend on the picture alone."""

    def __init__(self, config: VisionInputConfig) -> None:
        self.config = config

    @property
    def patch_dim(self) -> int:
        """P, the numbers of one patch."""
        return 3 * self.config.patch_size**2

    def decode(self, source: ImageSource) -> Tensor:
        """A picture as (3, H, W) uint8, from any of `ImageSource`; an array is (H, W[, 3]) uint8.

        What is transparent lies on white.

        Raises:
            DataError: not a PNG, JPEG or WebP picture, a broken one, one over `max_pixels`, or a
                PIL picture of 32-bit levels.
        """
        source = source.read() if isinstance(source, ShardFile) else source
        pixels_HWC = picture.read(source, self.config.max_pixels)
        return torch.from_numpy(pixels_HWC.transpose(2, 0, 1).copy())

    def medium(self, image: Tensor) -> Medium:
        """Cut a (3, H, W) uint8 picture into patches of values in [-1, 1].

        A side that is not a multiple of the patch size is stretched to the nearest one, and a
        picture of more than `max_tokens` patches is scaled down, keeping its shape.
        """
        size = self.config.patch_size
        rows, columns = self.grid(image.shape[1], image.shape[2])
        if (rows * size, columns * size) != tuple(image.shape[1:]):
            # what torchvision's resize calls, without the two seconds of its import
            image = interpolate(
                _shortened(image)[None],
                (rows * size, columns * size),
                mode="bicubic",
                align_corners=False,
                antialias=True,
            )[0]
        pixels = image.float() / 127.5 - 1
        patches = pixels.unfold(1, size, size).unfold(2, size, size)  # (3, rows, columns, p, p)
        features = patches.permute(1, 2, 0, 3, 4).reshape(rows * columns, -1)
        return Medium(Modality.VISION, features.contiguous(), rows * columns, (rows, columns))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that a picture of this size gets."""
        size, most = self.config.patch_size, self.config.max_tokens
        rows, columns = (max(1, round(side / size)) for side in (height, width))
        if rows * columns > most:
            scale = math.sqrt(most / (height * width)) * size
            rows = min(max(1, int(height * scale / size)), most)
            columns = min(max(1, int(width * scale / size)), most // rows)
        return rows, columns

    def picture(self, patches: Tensor, grid: tuple[int, int]) -> np.ndarray:
        """The inverse of `medium`: (T, P) patches as an (H, W, 3) uint8 array."""
        pixels = unpatched(patches, grid, self.config.patch_size).permute(1, 2, 0)
        return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()


def unpatched(patches: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """(T, P) patches laid side by side: values (3, H, W)."""
    rows, columns = grid
    pixels = patches.reshape(rows, columns, 3, size, size).permute(2, 0, 3, 1, 4)
    return pixels.reshape(3, rows * size, columns * size)
