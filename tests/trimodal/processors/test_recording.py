"""Recordings: what is decoded and what is refused, through the processor that users call."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch

from trimodal.config import SpeechInputConfig
from trimodal.errors import DataError
from trimodal.processors import recording
from trimodal.processors.speech import SpeechProcessor
from trimodal.testing import assert_close

PROCESSOR = SpeechProcessor(SpeechInputConfig(num_mels=16, max_seconds=4.0))


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


def _pitch(waveform: torch.Tensor) -> float:
    return int(torch.fft.rfft(waveform).abs().argmax()) * 16_000 / len(waveform)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8_000, 11_025, 12_000, 16_000, 22_050, 44_100, 48_000])
def test_every_rate_becomes_sixteen_kilohertz(rate: int, container: str) -> None:
    waveform = PROCESSOR.decode(_encode(_tone(rate), rate, container))
    assert len(waveform) == pytest.approx(16_000, abs=1)
    assert _pitch(waveform) == pytest.approx(440, abs=2)
    assert waveform.abs()[1000:-1000].max() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("rate", [1_001, 7_999, 15_990, 22_051, 47_999, 191_661, 191_999])
def test_an_odd_rate_costs_no_more_than_another(rate: int) -> None:
    """A header must not decide how large the resampling filter gets: 47,999 Hz took gigabytes."""
    waveform = PROCESSOR.decode((_tone(rate, 0.5), rate))
    assert len(waveform) == pytest.approx(8_000, rel=0.002)
    assert _pitch(waveform) == pytest.approx(440, abs=2)
    filters = [buffer.nbytes for buffer in recording._resampler(rate, 16_000).buffers()]
    slots = recording._resampler.cache_info().maxsize
    assert slots
    assert sum(filters) < (64 << 20) / slots


@pytest.mark.parametrize(
    "rates", [range(1_000, 192_001, 7), (8_000, 11_025, 12_000, 22_050, 44_100, 48_000, 96_000)]
)
def test_common_rates_are_exact_and_others_nearly(
    rates: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resample = Mock()
    monkeypatch.setattr(recording.torchaudio.transforms, "Resample", resample)
    for rate in rates:
        recording._resampler.__wrapped__(rate, 16_000)
        source, target = resample.call_args.args
        within = 0.002 if isinstance(rates, range) else 0
        assert source / target == pytest.approx(rate / 16_000, rel=within, abs=0)


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
        waveform = PROCESSOR.decode(source)
        assert waveform.dtype is torch.float32
        assert len(waveform) == pytest.approx(16_000, abs=1200)
        assert _pitch(waveform) == pytest.approx(440, abs=2)


def test_stereo_is_mixed() -> None:
    left, right = _tone(pitch=300), _tone(pitch=900)
    waveform = PROCESSOR.decode(_encode(np.stack([left, right], axis=1), subtype="FLOAT"))
    assert_close(waveform, (left + right) / 2, "fp32")


@pytest.mark.parametrize("data", [32_000, 0xFFFFFFF0, 0xFFFFFFFF])
@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF])
def test_a_header_from_a_pipe_states_no_size(riff: int, data: int) -> None:
    whole = _encode(_tone())
    sizes = [size.to_bytes(4, "little") for size in (riff, data)]
    piped = whole[:4] + sizes[0] + whole[8:40] + sizes[1] + whole[44:]
    assert len(PROCESSOR.decode(piped)) == 16_000


def test_a_flac_file_from_a_pipe_states_no_length() -> None:
    samples = np.round(_tone() * 32_768) / 32_768
    assert_close(PROCESSOR.decode(_piped_flac(samples)), samples, "exact")
    assert len(PROCESSOR.decode(_piped_flac(_tone(seconds=4)))) == 64_000


def test_samples_in_memory_are_taken_as_they_are() -> None:
    samples = _tone(seconds=0.1)
    assert_close(PROCESSOR.decode((samples, 16_000)), samples, "exact")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "speech is an empty file"),
        (b"seven", "speech is not WAV, FLAC, OGG or MP3"),
        (b"RIFF" + bytes(60), "speech is truncated or corrupt"),
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
        ((np.full(1600, 1e38), 16_000), "speech has samples that are not finite numbers"),
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
        PROCESSOR.decode(source)
    assert str(caught.value).startswith(message)
    assert caught.value.code in ("invalid_audio", "audio_too_long")
    assert "\n" not in str(caught.value)


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
            assert bool(PROCESSOR.decode(damaged.tobytes()).isfinite().all())
        except DataError:
            refused += 1
    assert refused >= least
