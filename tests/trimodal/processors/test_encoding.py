"""Pictures and speech as files that other programs read."""

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from trimodal.config import SpeechInputConfig, VisionInputConfig
from trimodal.processors.encoding import PICTURES, SOUNDS, picture_bytes, speech_bytes
from trimodal.processors.speech import SpeechProcessor
from trimodal.processors.vision import VisionProcessor

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
WAVE = (0.5 * np.sin(np.arange(8000) / 20)).astype(np.float32)


@pytest.mark.parametrize("name", sorted(set(PICTURES.values())))
def test_a_picture_is_read_back(name: str) -> None:
    with Image.open(io.BytesIO(picture_bytes(PIXELS, name))) as image:
        assert image.format == name
        found = np.asarray(image.convert("RGB"))
    assert found.shape == PIXELS.shape
    if name != "JPEG":
        assert np.array_equal(found, PIXELS)
    decoded = VisionProcessor(VisionInputConfig()).decode(picture_bytes(PIXELS, name))
    assert np.array_equal(decoded.permute(1, 2, 0).numpy(), found)


@pytest.mark.parametrize("name", sorted(SOUNDS.values()))
def test_speech_is_read_back(name: str) -> None:
    data = speech_bytes(WAVE, 16_000, name)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert file.samplerate == 16_000
        assert file.channels == 1
        found = file.read(dtype="float32")
    if name in ("WAV", "FLAC"):
        assert np.abs(found - WAVE).max() <= 1 / 2**15
    else:
        assert abs(len(found) - len(WAVE)) < 3000
        assert abs(np.square(found).mean() / np.square(WAVE).mean() - 1) < 0.5
    SpeechProcessor(SpeechInputConfig()).decode(data)


def test_the_loudest_sample_does_not_wrap() -> None:
    wave = np.array([1.0, -1.0] * 50, dtype=np.float32)
    found, _ = soundfile.read(io.BytesIO(speech_bytes(wave, 8000)))
    assert (np.sign(found) == np.sign(wave)).all()


def test_suffixes_have_formats() -> None:
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in PICTURES | SOUNDS)
    for name in PICTURES.values():
        assert picture_bytes(PIXELS, name) == picture_bytes(PIXELS, name)
