"""Recordings: what is decoded and what is refused."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from trimodal.errors import DataError
from trimodal.media import recording
from trimodal.testing import assert_close


def decode(source: Any) -> np.ndarray:
    return recording.read(source, 4.0)[0]


def _tone(rate: int = 16_000, seconds: float = 1.0, pitch: float = 440.0) -> np.ndarray:
    times = np.arange(int(rate * seconds)) / rate
    return (0.3 * np.sin(2 * np.pi * pitch * times)).astype(np.float32)


def _encode(
    samples: np.ndarray, rate: int = 16_000, container: str = "WAV", subtype: str | None = None
) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=container, subtype=subtype)
    return stream.getvalue()


def _halved(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def _piped_flac(samples: np.ndarray) -> bytes:
    """A FLAC file whose header does not know the number of samples."""
    whole = _encode(samples, container="FLAC")
    return whole[:21] + bytes([whole[21] & 0xF0]) + bytes(4) + whole[26:]


def _pitch(samples: np.ndarray) -> float:
    return int(abs(np.fft.rfft(samples)).argmax()) * 16_000 / len(samples)


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        *(("WAV", subtype) for subtype in ("PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE")),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", None),
    ],
)
def test_every_container_is_read(container: str, subtype: str | None, tmp_path: Path) -> None:
    path = tmp_path / "speech"
    path.write_bytes(_encode(_tone(), 16_000, container, subtype))
    for source in (path, str(path), path.read_bytes()):
        waveform = decode(source)
        assert waveform.dtype == np.float32
        assert len(waveform) == pytest.approx(16_000, abs=1200)
        assert _pitch(waveform) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("data", [32_000, 0xFFFFFFF0, 0xFFFFFFFF])
@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF])
def test_a_header_from_a_pipe_states_no_size(riff: int, data: int) -> None:
    whole = _encode(_tone())
    sizes = [size.to_bytes(4, "little") for size in (riff, data)]
    piped = whole[:4] + sizes[0] + whole[8:40] + sizes[1] + whole[44:]
    assert len(decode(piped)) == 16_000


def test_a_flac_file_from_a_pipe_states_no_length() -> None:
    samples = np.round(_tone() * 32_768) / 32_768
    assert_close(decode(_piped_flac(samples)), samples, "exact")
    assert len(decode(_piped_flac(_tone(seconds=4)))) == 64_000


def test_samples_in_memory_are_taken_as_they_are() -> None:
    samples = _tone(seconds=0.1)
    assert_close(decode((samples, 16_000)), samples, "exact")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "speech is an empty file"),
        (b"seven", "speech is not WAV, FLAC, OGG or MP3"),
        (b"RIFF" + bytes(60), "speech is not WAV, FLAC, OGG or MP3"),
        (b"RIFF" + bytes(4) + b"WAVE" + bytes(60), "speech is truncated or corrupt"),
        (b"RIFF" + bytes(4) + b"WAVE" + b"junk\0\0\0\0" * 200, "speech is truncated or corrupt"),
        (b"OggS" + bytes(60), "speech is truncated"),
        (_encode(_tone(), container="AIFF"), "speech is not WAV, FLAC, OGG or MP3"),
        (_encode(_tone(), subtype="ULAW"), "speech is encoded as ULAW, which is not read"),
        (
            _encode(_tone(), subtype="IMA_ADPCM"),
            "speech is encoded as IMA_ADPCM, which is not read",
        ),
        (_encode(np.zeros(0)), "speech has no samples"),
        (_encode(_tone())[:30], "speech is truncated"),
        (_encode(_tone())[:-2], "speech is truncated"),
        (_encode(_tone(), container="FLAC")[:-2000], "speech is truncated"),
        (_encode(_tone(), container="OGG")[:-1000], "speech is truncated"),
        (_encode(_tone(), container="OGG")[:-1], "speech is truncated"),
        (_halved(_encode(_tone(seconds=4), container="OGG")), "speech is truncated"),
        (_halved(_encode(_tone(seconds=4), 48_000, "OGG", "OPUS")), "speech is truncated"),
        (_encode(_tone())[:40] + b"\xff\xff\xff\x0f" + bytes(32_000), "speech is truncated"),
        (_halved(_piped_flac(_tone())), "speech is truncated"),
        (_piped_flac(_tone(seconds=4.1)), "speech is longer than the limit of 4 s"),
        (_encode(_tone(), container="MP3")[:-800], "speech is truncated"),
        (_encode(_tone(seconds=5)), "speech is 5.0 s long, the limit is 4 s"),
        (_encode(np.zeros((1600, 3))), "speech has 3 channels; mono and stereo are read"),
        (
            _encode(np.array([0, np.nan, 0]), subtype="FLOAT"),
            "speech has samples that are not finite",
        ),
        ((np.array([0, np.inf], np.float32), 16_000), "speech has samples that are not finite"),
        ((np.zeros(0), 16_000), "speech has no samples"),
        ((np.zeros(100), 0), "speech has a sample rate of 0 Hz; 1 to 192 kHz are read"),
        ((np.zeros(100), 384_000), "speech has a sample rate of 384000 Hz; 1 to 192 kHz are read"),
        ((np.zeros(100), 16_000, 1), "speech must be a pair of an array of samples and a rate"),
        ((np.zeros(100),), "speech must be a pair of an array of samples and a rate"),
        ((np.zeros(100), None), "speech must be a pair of an array of samples and a rate"),
        ((np.zeros(100), math.nan), "speech must be a pair of an array of samples and a rate"),
        ((np.zeros(100), math.inf), "speech must be a pair of an array of samples and a rate"),
        ((np.zeros(100), "x"), "speech must be a pair of an array of samples and a rate"),
        (([[1.0], [1.0, 2.0]], 16_000), "speech must be a pair of an array of samples and a rate"),
        ((np.zeros((2, 1600)), 16_000), "speech has 1600 channels; mono and stereo are read"),
        ("/nowhere/at/all.wav", "speech /nowhere/at/all.wav cannot be read: No such file"),
        (".", "speech . cannot be read: Is a directory"),
        ("a\0b", "speech a\0b cannot be read: embedded null byte"),
        (3, "speech must be a path, bytes or (samples, rate), got int"),
        (
            (np.full(1600, 1e38), 16_000),
            "speech has samples that are not finite, or not below 1e+12",
        ),
        (
            (np.array(["a"]), 16_000),
            "speech samples must be (S,) or (S, channels) numbers, got (1,)",
        ),
        (
            (np.zeros((9, 1, 2)), 16_000),
            "speech samples must be (S,) or (S, channels) numbers, got",
        ),
    ],
    ids=[
        *(
            "empty",
            "text",
            "riff",
            "wave",
            "many-chunks",
            "oggs",
            "aiff",
            "ulaw",
            "adpcm",
            "no-samples",
            "cut-header",
            "cut-wav",
        ),
        *("cut-flac", "cut-ogg", "cut-page", "half-vorbis", "half-opus", "cut-data"),
        *("half-piped-flac", "long-piped-flac"),
        *("cut-mp3", "long", "three-channels", "nan", "infinite"),
        *("no-array", "no-rate", "high-rate", "triple", "single", "rate-none", "rate-nan"),
        *("rate-infinite", "rate-word", "ragged"),
        *("channels-first", "missing", "folder"),
        *("null-byte", "file-descriptor", "overflow", "strings", "cube"),
    ],
)
def test_what_is_no_speech_is_named(source: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        decode(source)
    assert str(caught.value).startswith(message)
    assert caught.value.code in ("invalid_audio", "audio_too_long")
    assert "\n" not in str(caught.value)


ID3 = b"ID3\4\0\0\0\0\0\x07"


@pytest.mark.parametrize("container", ["MP3", "FLAC"])
def test_a_tag_may_come_before_a_recording(container: str) -> None:
    whole = ID3 + bytes(7) + _encode(_tone(), container=container)
    assert len(decode(whole)) == pytest.approx(16_000, abs=1200)


@pytest.mark.parametrize("container", ["AIFF", "AU", "CAF", "W64", "VOC", "WAV"])
def test_a_tag_hides_no_other_container(container: str) -> None:
    for tag in (ID3 + bytes(7), ID3, ID3[:9]):
        with pytest.raises(DataError, match=r"is not WAV, FLAC, OGG or MP3|is truncated"):
            decode(tag + _encode(_tone(), container=container))


@pytest.mark.parametrize("subtype", ["ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32"])
def test_libsndfile_never_sees_an_encoding_that_is_not_read(
    subtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _encode(_tone(8_000), 8_000, subtype=subtype)
    monkeypatch.setattr(recording, "_Reader", None)
    with pytest.raises(DataError, match=r"is encoded as .*, which is not read"):
        decode(whole)


@pytest.mark.parametrize(
    ("container", "least"), [("WAV", 5), ("FLAC", 20), ("OGG", 20), ("MP3", 1)]
)
def test_damaged_bytes_never_end_in_another_error(container: str, least: int) -> None:
    whole = np.frombuffer(_encode(_tone(seconds=0.2), container=container), dtype=np.uint8)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        damaged = whole.copy()
        damaged[rng.integers(0, min(len(whole), 400), 3)] = rng.integers(0, 256, 3)
        try:
            assert bool(np.isfinite(decode(damaged.tobytes())).all())
        except DataError:
            refused += 1
    assert refused >= least
