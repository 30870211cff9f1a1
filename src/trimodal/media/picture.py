"""A picture as bytes of red, green and blue: PNG, JPEG or WebP, read under limits.

pixels_HWC = read(Path("cat.jpg"), max_pixels=40_000_000)
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from trimodal.errors import DataError

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


def read(source: str | Path | bytes | Image.Image | np.ndarray, max_pixels: int) -> np.ndarray:
    """A picture as (H, W, 3) uint8; an array is (H, W[, 3]) uint8.

    What is transparent lies on white. The array may be a view that must not be written to.

    Raises:
        DataError: not a PNG, JPEG or WebP picture, a broken or animated one, one of more than
            `max_pixels`, or a PIL picture of 32-bit levels.
    """
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    if not isinstance(source, str | Path | bytes | Image.Image):
        raise DataError(
            f"image must be a path, bytes, a picture or an array, got {type(source).__name__}",
            code="invalid_image",
        )
    if isinstance(source, Image.Image):
        with _refusals(max_pixels):
            return _pixels(source, max_pixels)
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"image {source} cannot be read: {cause}", code="invalid_image") from error
    with stream, _refusals(max_pixels), Image.open(stream, formats=FORMATS) as image:
        return _pixels(image, max_pixels)


@contextlib.contextmanager
def _refusals(max_pixels: int) -> Iterator[None]:
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
            raise _too_large(max_pixels) from None
        except Exception as error:  # Pillow's decoders raise nearly anything
            raise DataError("image is truncated or corrupt", code="invalid_image") from error


def _from_array(array: np.ndarray) -> Image.Image:
    channels = array.shape[2:] if array.ndim == 3 else ()
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in ((), (3,)):
        raise DataError(
            f"image array must be (H, W) or (H, W, 3) uint8, got {array.shape} {array.dtype}",
            code="invalid_image",
        )
    return Image.fromarray(array)


def _too_large(max_pixels: int) -> DataError:
    return DataError(f"image has more than {max_pixels} pixels", code="image_too_large_pixels")


def _pixels(image: Image.Image, max_pixels: int) -> np.ndarray:
    if image.width * image.height > max_pixels:
        raise _too_large(max_pixels)
    if image.width * image.height == 0:
        raise DataError("image has no pixels", code="invalid_image")
    if (frames := _frames(image)) > 1:
        raise DataError(
            f"image is an animated picture of {frames} frames; only still ones are read",
            code="invalid_image",
        )
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
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _frames(image: Image.Image) -> int:
    """Pictures that follow each other; a JPEG may carry a preview or a depth map of its own."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


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
