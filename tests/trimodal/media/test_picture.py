"""Pictures: what is decoded and what is refused."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image, ImageOps

from trimodal.errors import DataError
from trimodal.media import picture as pictures


def decode(source: Any) -> np.ndarray:
    return pictures.read(source, 40_000_000)


def _pixels(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _encode(picture: Image.Image, container: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, container, **options)
    return stream.getvalue()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _png_with(chunk: bytes) -> bytes:
    """A PNG with a chunk behind its pixels."""
    whole = _encode(Image.new("RGB", (4, 4)), "PNG")
    return whole[:-12] + chunk + whole[-12:]


def _exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Tags, each a number, a type, a count and a value of four bytes."""
    body = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4)


TURNED = (0x112, 3, 1, b"\6\0\0\0")  # clockwise


@pytest.mark.parametrize("container", ["PNG", "WEBP"])
def test_lossless_files_keep_every_pixel(container: str, tmp_path: Path) -> None:
    pixels = _pixels()
    path = tmp_path / "picture"
    path.write_bytes(_encode(Image.fromarray(pixels), container, lossless=True))
    for source in (path, str(path), path.read_bytes(), pixels, Image.fromarray(pixels)):
        assert np.array_equal(decode(source), pixels)


def test_jpeg_is_read() -> None:
    flat = Image.new("RGB", (16, 8), (200, 100, 50))
    decoded = decode(_encode(flat, "JPEG", quality=95))
    assert decoded.shape == (8, 16, 3)
    assert abs(decoded.mean((0, 1)) - [200, 100, 50]).max() < 3


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    picture = Image.new("RGB", (5, 3), (255, 255, 255)).convert(mode)
    decoded = decode(_encode(picture, "PNG"))
    assert decoded.shape == (3, 5, 3)
    assert bool((decoded == 255).all())


@pytest.mark.parametrize("container", ["PNG", "WEBP"])
def test_what_is_transparent_lies_on_white(container: str) -> None:
    picture = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    picture.putpixel((1, 0), (10, 20, 30, 255))
    decoded = decode(_encode(picture, container, lossless=True, exact=True))
    assert decoded[0].tolist() == [[255, 255, 255], [10, 20, 30]]


def test_a_picture_that_pillow_has_not_read_yet_may_be_broken() -> None:
    whole = _encode(Image.fromarray(_pixels(64, 64)), "PNG")
    picture = Image.open(io.BytesIO(whole[:-900]))
    with pytest.raises(DataError, match="image is truncated or corrupt"):
        decode(picture)


def test_sixteen_bit_greys_are_scaled() -> None:
    levels = np.array([[0, 257 * 100, 65_535]], dtype=np.uint16)
    decoded = decode(_encode(Image.fromarray(levels), "PNG"))
    assert decoded[..., 0].tolist() == [[0, 100, 255]]


def test_sixteen_bit_greys_are_turned_and_lie_on_white() -> None:
    levels = np.array([[257 * 100, 7, 8, 0]], dtype=np.uint16)  # 7 and 8 are both 0 of 255
    whole = _encode(Image.fromarray(levels), "PNG", exif=_exif(TURNED), transparency=7)
    assert decode(whole)[..., 0].tolist() == [[100], [255], [0], [0]]


@pytest.mark.parametrize("orientation", range(10))
def test_a_photograph_is_turned_as_its_camera_was(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    picture = Image.fromarray(_pixels())
    decoded = decode(_encode(picture, "PNG", exif=exif))
    picture.getexif()[274] = orientation
    assert np.array_equal(decoded, np.array(ImageOps.exif_transpose(picture)))


@pytest.mark.parametrize("value", [b"\1\0\0\0", b"\xff\xff\xff\xff"])
@pytest.mark.parametrize("kind", [1, 2, 5, 7, 12])
def test_an_odd_tag_beside_the_orientation_does_no_harm(kind: int, value: bytes) -> None:
    whole = _encode(Image.new("RGB", (8, 6)), "JPEG", exif=_exif(TURNED, (0x11A, kind, 1, value)))
    assert decode(whole).shape == (8, 6, 3)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0seven",
        _exif((0x112, 2, 4, b"six\0")),
    ],
    ids=["empty", "nowhere", "text", "orientation-in-words"],
)
def test_a_damaged_exif_block_turns_nothing(exif: bytes) -> None:
    whole = _encode(Image.new("RGB", (8, 6)), "JPEG", exif=exif)
    assert decode(whole).shape == (6, 8, 3)


def test_memory_that_is_short_is_no_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        decode(Image.new("RGB", (4, 4)))


def test_a_grey_array_is_a_picture() -> None:
    decoded = decode(np.full((4, 4), 7, dtype=np.uint8))
    assert np.unique(decoded).tolist() == [7]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "image is not a PNG, JPEG or WebP picture"),
        (b"seven is a number\n" * 9, "image is not a PNG, JPEG or WebP picture"),
        (_encode(Image.new("RGB", (4, 4)), "GIF"), "image is not a PNG, JPEG or WebP picture"),
        (_encode(Image.new("RGB", (4, 4)), "TIFF"), "image is not a PNG, JPEG or WebP picture"),
        (_png_header(10_000, 10_000), "image has more than 40000000 pixels"),
        (_png_header(60_000, 60_000), "image has more than 40000000 pixels"),
        (_png_header(50, 50), "image is truncated or corrupt"),
        (_encode(Image.fromarray(_pixels(64, 64)), "JPEG")[:-900], "image is truncated or corrupt"),
        (_encode(Image.fromarray(_pixels(64, 64)), "PNG")[:-900], "image is truncated or corrupt"),
        (_encode(Image.fromarray(_pixels(64, 64)), "WEBP")[:-900], "image is truncated or corrupt"),
        (
            np.zeros((4, 4, 3)),
            "image array must be (H, W) or (H, W, 3) uint8, got (4, 4, 3) float64",
        ),
        (np.zeros((4, 4, 4), np.uint8), "image array must be (H, W) or (H, W, 3) uint8, got"),
        (np.zeros((0, 4, 3), np.uint8), "image has no pixels"),
        (_png_with(_chunk(b"iCCP", b"")), "image is truncated or corrupt"),
        (Image.new("I", (4, 4)), "image has 32-bit levels (mode I); 8 and 16 bits are read"),
        (Image.new("F", (4, 4)), "image has 32-bit levels (mode F); 8 and 16 bits are read"),
        ("/nowhere/at/all.png", "image /nowhere/at/all.png cannot be read: No such file"),
        (".", "image . cannot be read: Is a directory"),
        ("a\0b", "image a\0b cannot be read: embedded null byte"),
        (3, "image must be a path, bytes, a picture or an array, got int"),
    ],
    ids=[
        *("empty", "text", "gif", "tiff", "100-megapixel", "3600-megapixel", "short-png"),
        *("cut-jpeg", "cut-png", "cut-webp", "floats", "four-channels", "no-rows"),
        *(
            "no-profile",
            "32-bit",
            "32-bit-float",
            "missing",
            "folder",
            "null-byte",
            "file-descriptor",
        ),
    ],
)
def test_what_is_no_picture_is_named(source: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        decode(source)
    assert str(caught.value).startswith(message)
    assert caught.value.code in ("invalid_image", "image_too_large_pixels")
    assert "\n" not in str(caught.value)


def _several(container: str) -> bytes:
    red, blue = (Image.new("RGB", (5, 4), colour) for colour in ("red", "blue"))
    return _encode(red, container, save_all=True, append_images=[blue])


@pytest.mark.parametrize("container", ["PNG", "WEBP", "GIF"])
def test_an_animated_picture_is_no_picture(container: str) -> None:
    whole = _several(container)
    opened = Image.open(io.BytesIO(whole))
    for source in (opened,) if container == "GIF" else (whole, opened):
        with pytest.raises(DataError, match="an animated picture of 2 frames") as caught:
            decode(source)
        assert caught.value.code == "invalid_image"
    assert decode(opened.copy()).shape == (4, 5, 3)


@pytest.mark.parametrize("container", ["PNG", "WEBP"])
def test_one_frame_is_no_animation(container: str) -> None:
    red = Image.new("RGB", (5, 4), "red")
    assert decode(_encode(red, container, save_all=True)).shape == (4, 5, 3)


def test_what_a_camera_puts_behind_a_jpeg_is_no_animation() -> None:
    pixels = decode(_several("MPO"))
    assert pixels[..., 0].min() > 200 > 60 > pixels[..., 2].max()


@pytest.mark.parametrize("container", ["PNG", "JPEG", "WEBP"])
def test_damaged_bytes_never_end_in_another_error(container: str) -> None:
    whole = np.frombuffer(_encode(Image.fromarray(_pixels(24, 24)), container), dtype=np.uint8)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(120):
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 3)] = rng.integers(0, 256, 3)
        try:
            assert decode(damaged.tobytes()).dtype == np.uint8
        except DataError:
            refused += 1
    assert refused > 10
