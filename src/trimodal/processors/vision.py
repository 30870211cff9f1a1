"""Pictures of any size to patches at their native size.

medium = processor.medium(processor.decode("cat.jpg"))
"""

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from trimodal.batch import Medium, Modality
from trimodal.config import VisionInputConfig
from trimodal.errors import DataError
from trimodal.storage import ShardFile

ImageSource = str | Path | ShardFile | bytes | Image.Image | np.ndarray
FORMATS = ("PNG", "JPEG", "WEBP")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LONGEST_SIDE = 1_000_000


def _turned(image: Image.Image) -> Image.Image:
    """Upright, as the orientation tag says; a damaged EXIF block says nothing."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's readers of EXIF raise nearly anything
        return image
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey, which convert would clip to white, as 8-bit grey on white."""
    levels = np.asarray(image)
    grey = (levels // 257).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:
        grey[levels == transparent] = 255
    return Image.fromarray(grey)


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
        if isinstance(source, ShardFile):
            source = source.read()
        if isinstance(source, np.ndarray):
            source = self._from_array(source)
        if not isinstance(source, str | Path | bytes | Image.Image):
            raise DataError(
                f"image must be a path, bytes, a picture or an array, got {type(source).__name__}",
                code="invalid_image",
            )
        if isinstance(source, Image.Image):
            with self._refusals():
                return self._pixels(source)
        try:
            stream = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            cause = getattr(error, "strerror", None) or error
            raise DataError(
                f"image {source} cannot be read: {cause}", code="invalid_image"
            ) from error
        with stream, self._refusals(), Image.open(stream, formats=FORMATS) as image:
            return self._pixels(image)

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """What Pillow raises and warns of, in our words."""
        with warnings.catch_warnings():
            # our own limit, checked on the header, is the one that speaks; damaged EXIF is ignored
            warnings.simplefilter("ignore")
            try:
                yield
            except (DataError, MemoryError):
                raise
            except UnidentifiedImageError:
                raise DataError(
                    "image is not a PNG, JPEG or WebP picture", code="invalid_image"
                ) from None
            except Image.DecompressionBombError:
                raise self._too_large() from None
            except Exception as error:  # Pillow's decoders raise nearly anything
                raise DataError("image is truncated or corrupt", code="invalid_image") from error

    def _from_array(self, array: np.ndarray) -> Image.Image:
        channels = array.shape[2:] if array.ndim == 3 else ()
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in ((), (3,)):
            raise DataError(
                f"image array must be (H, W) or (H, W, 3) uint8, got {array.shape} {array.dtype}",
                code="invalid_image",
            )
        return Image.fromarray(array)

    def _too_large(self) -> DataError:
        return DataError(
            f"image has more than {self.config.max_pixels} pixels", code="image_too_large_pixels"
        )

    def _pixels(self, image: Image.Image) -> Tensor:
        if image.width * image.height > self.config.max_pixels:
            raise self._too_large()
        if image.width * image.height == 0:
            raise DataError("image has no pixels", code="invalid_image")
        if image.mode in ("I", "F"):
            raise DataError(
                f"image has 32-bit levels (mode {image.mode}); 8 and 16 bits are read",
                code="invalid_image",
            )
        image.load()  # a PNG may hold its EXIF block behind the pixels
        image = _turned(image)
        if image.mode.startswith("I;16"):
            image = _eight_bits(image)
        if image.has_transparency_data:  # the colours under a transparent pixel are arbitrary
            ground = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(ground, image.convert("RGBA"))
        image = image if image.mode == "RGB" else image.convert("RGB")
        pixels_HWC = torch.from_numpy(np.asarray(image))  # of bytes that must not be written to
        return pixels_HWC.permute(2, 0, 1).clone(memory_format=torch.contiguous_format)

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
