"""Files that crash, hang or swell what opens them do so in a process of their own."""

import errno
import io
import os
import signal
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from PIL import Image

from trimodal.errors import DataError
from trimodal.media import picture, recording
from trimodal_serving import openers as module
from trimodal_serving.errors import ServingError
from trimodal_serving.openers import Openers


@pytest.fixture
def openers() -> Iterator[Openers]:
    made = Openers()
    yield made
    made.close()


def children(openers: Openers) -> list[psutil.Process]:
    """The processes that open files for these, not those of other servers of the tests."""
    return [psutil.Process(opener._process.pid) for opener in openers._all]


def soon(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_numbers_are_those_of_this_process(openers: Openers, png: bytes, wav: bytes) -> None:
    assert np.array_equal(openers.picture(png, 63), picture.read(png, 63))
    samples, rate = openers.recording(wav, 1.0)
    expected, expected_rate = recording.read(wav, 1.0)
    assert np.array_equal(samples, expected)
    assert rate == expected_rate == 16_000
    assert len(children(openers)) == 1, "one thread needs one process"


def test_a_refusal_is_that_of_this_process(openers: Openers, png: bytes) -> None:
    openers.picture(png, 63)
    (child,) = children(openers)
    with pytest.raises(DataError, match="image has more than 62 pixels") as caught:
        openers.picture(png, 62)
    assert caught.value.code == "image_too_large_pixels"
    with pytest.raises(DataError, match="speech is not WAV"):
        openers.recording(png, 1.0)
    assert openers.picture(png, 63).shape == (7, 9, 3)
    assert children(openers) == [child]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSEGV])
def test_a_file_that_ends_its_process_is_refused_and_banned(
    openers: Openers, png: bytes, wav: bytes, end: signal.Signals
) -> None:
    openers.picture(png, 63)
    (child,) = children(openers)
    child.suspend()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(openers.picture, png, 63)
        time.sleep(0.1)
        os.kill(child.pid, end)
        child.resume()
        with pytest.raises(ServingError, match="breaks its reader") as caught:
            asked.result(20)
    assert (caught.value.status, caught.value.code) == (400, "invalid_image")
    with pytest.raises(ServingError, match="breaks its reader"):
        openers.picture(png, 63)
    assert not children(openers), "it is not tried again"
    assert openers.recording(wav, 1.0)[1] == 16_000, "others are opened"


def test_a_ban_ends(openers: Openers, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    openers._ban(png)
    with pytest.raises(ServingError):
        openers.picture(png, 63)
    monkeypatch.setattr(module, "BANNED_SECONDS", 0.0)
    assert openers.picture(png, 63).shape == (7, 9, 3)


def test_only_so_many_files_are_banned(openers: Openers) -> None:
    for i in range(module.MOST_BANNED + 9):
        openers._ban(b"%d" % i)
    assert len(openers._banned) == module.MOST_BANNED


def test_what_takes_too_long_is_given_up(
    openers: Openers, png: bytes, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 3.0)
    openers.picture(png, 63)
    (child,) = children(openers)
    child.suspend()
    with pytest.raises(ServingError, match="takes too long"):
        openers.recording(wav, 1.0)
    assert soon(lambda: not child.is_running())
    assert openers.picture(png, 63).shape == (7, 9, 3)


def _png(width: int, height: int, colour_type: int) -> bytes:
    """A real picture of one colour, small as a file."""
    channels = {2: 3, 6: 4}[colour_type]
    packer = zlib.compressobj(1)
    row = bytes(1 + width * channels)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def test_a_file_that_needs_too_much_memory_is_refused(openers: Openers, png: bytes) -> None:
    """96 megapixels, where the limit on pixels would let them pass."""
    bomb = _png(12_000, 8_000, 6)
    with pytest.raises(ServingError, match="takes more memory to open than one may have"):
        openers.picture(bomb, 1 << 40)
    assert openers.picture(png, 63).shape == (7, 9, 3)


@pytest.mark.parametrize("name", [b"iTXt", b"zTXt", b"iCCP"])
def test_what_is_packed_beside_the_pixels_does_not_grow(
    openers: Openers, png: bytes, name: bytes
) -> None:
    begin = b"a\0\1\0\0\0" if name == b"iTXt" else b"a\0\0"
    packed = _chunk(name, begin + zlib.compress(bytes(100_000_000)))
    with pytest.raises(DataError, match="truncated or corrupt"):
        openers.picture(png[:33] + packed + png[33:], 63)
    (child,) = children(openers)
    assert openers.picture(png, 63).shape == (7, 9, 3)
    assert children(openers) == [child], "it was no harm"


def test_the_largest_picture_that_is_allowed_fits(openers: Openers) -> None:
    """Transparent, so that it is in memory several times."""
    assert openers.picture(_png(8_000, 5_000, 6), 40_000_000).shape == (5_000, 8_000, 3)


def test_without_room_for_a_process_a_file_is_not_at_fault(
    openers: Openers, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(module.subprocess, "Popen", full)
        with pytest.raises(ServingError, match="no room") as caught:
            openers.picture(png, 63)
    error = caught.value
    assert (error.status, error.code, error.retry_after) == (503, "overloaded", 1)
    assert openers.picture(png, 63).shape == (7, 9, 3)


def test_a_process_is_replaced_after_some_files(
    openers: Openers, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_JOBS", 2)
    seen = set()
    for _ in range(4):
        openers.picture(png, 63)
        seen |= {child.pid for child in children(openers)}
    assert not children(openers), "the second one is at its end, too"
    assert len(seen) == 2


def test_closing_ends_all_of_them_also_busy_ones(openers: Openers, png: bytes) -> None:
    barrier = threading.Barrier(3)

    def ask() -> None:
        barrier.wait(20)
        openers.picture(png, 63)

    with ThreadPoolExecutor(3) as pool:
        for one in [pool.submit(ask) for _ in range(3)]:
            one.result(20)
    busy = children(openers)
    assert busy
    for child in busy:
        child.suspend()
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(openers.picture, png, 63) for _ in busy]
        time.sleep(0.2)
        openers.close()
        refusals = [one.exception(20) for one in asked]
    assert all(isinstance(one, ServingError) and one.code == "draining" for one in refusals)
    assert soon(lambda: not children(openers))


def test_colours_of_every_kind_are_opened_there(openers: Openers) -> None:
    """As printers name them, and from a palette."""
    for mode, container in (("CMYK", "JPEG"), ("RGB", "WEBP"), ("P", "PNG")):
        stream = io.BytesIO()
        Image.new("RGB", (5, 4), "red").convert(mode).save(stream, container)
        pixels = openers.picture(stream.getvalue(), 20)
        assert pixels.shape == (4, 5, 3)
        assert pixels[..., 0].mean() > 200
        assert pixels[..., 2].mean() < 60
