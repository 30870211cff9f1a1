"""A recording as samples: WAV, FLAC, OGG or MP3, read under limits and resampled.

waveform = resample(*read(Path("word.flac"), max_seconds=60.0), rate=16_000)
"""

import functools
import io
import math
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import torch
import torchaudio
from torch import Tensor

from trimodal.errors import DataError

# layer III frames of MPEG 1, 2 and 2.5 (8 to 12 kHz), with and without a checksum
MPEG = tuple(bytes([0xFF, version | check]) for version in (0xFA, 0xF2, 0xE2) for check in (0, 1))
MAGIC = (b"RIFF", b"fLaC", b"OggS", b"ID3", *MPEG)
SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "VORBIS", "OPUS", "MPEG_LAYER_III")
LOUDEST = 1e12
FILTER_SIZE = 600_000
LARGEST_PAGE = 65_307
UNKNOWN_LENGTH = 2**63 - 1


class _Reader(soundfile.SoundFile):
    """Reads from start to end; the seek that follows a read fails in a FLAC file from a pipe."""

    def seekable(self) -> bool:
        return False


@functools.lru_cache(maxsize=16)
def _resampler(source: int, target: int) -> torchaudio.transforms.Resample:
    # the filter has about as many numbers as the terms of the ratio have as a product: gigabytes
    # for 47,999 to 16,000 Hz; common rates are exact, the pitch of others is right within 0.13 %
    largest = math.isqrt(FILTER_SIZE * target // source)
    ratio = Fraction(source, target).limit_denominator(largest)
    return torchaudio.transforms.Resample(ratio.numerator, ratio.denominator)


def _is_cut_wav(stream: BinaryIO) -> bool:
    """Whether a WAV file is shorter than its headers say; libsndfile reads what there is.

    A header written into a pipe says 0 or the largest size, for want of a better knowledge.
    """
    size = stream.seek(0, io.SEEK_END)
    position = 0
    for _ in range(100):  # chunks come before the samples, but not many
        stream.seek(position)
        header = stream.read(8)
        name, stated = header[:4], int.from_bytes(header[4:], "little")
        if name in (b"RIFF", b"data") and 0 < stated < 0xFFFFFFF0 and size < position + 8 + stated:
            return True
        if name == b"data" or len(header) < 8:
            return False
        position += 12 if name == b"RIFF" else 8 + stated + stated % 2
    return False


def _is_cut_ogg(stream: BinaryIO) -> bool:
    """Whether the last page of an OGG file is not whole or not marked as the last."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - LARGEST_PAGE))
    tail = stream.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4:
        return True
    segments = page[26]
    return len(page) < 27 + segments + sum(page[27 : 27 + segments])


def waveform(
    source: str | Path | bytes | tuple[np.ndarray, int], max_seconds: float, target: int
) -> Tensor:
    """A path, encoded bytes or (samples, rate) as a mono waveform (S,) at `target` Hz.

    The samples of a pair are (S,) or (S, channels) float in [-1, 1].

    Raises:
        DataError: not WAV, FLAC, OGG or MP3; truncated, broken, empty, not finite or over the
            limits: `max_seconds`, 1 to 192 kHz, two channels.
    """
    if isinstance(source, tuple):
        samples, rate = _from_pair(source, max_seconds)
    elif isinstance(source, str | Path | bytes):
        samples, rate = _read(source, max_seconds)
    else:
        raise DataError(
            f"speech must be a path, bytes or (samples, rate), got {type(source).__name__}",
            code="invalid_audio",
        )
    # also false where one is not a number; the square of a louder one leaves fp32
    if not (samples.min() > -LOUDEST and samples.max() < LOUDEST):
        raise DataError("speech has samples that are not finite numbers", code="invalid_audio")
    mono = torch.from_numpy(samples if samples.ndim == 1 else samples.mean(axis=1))
    return _resampler(rate, target)(mono)


def _from_pair(pair: tuple[np.ndarray, int], max_seconds: float) -> tuple[np.ndarray, int]:
    try:
        samples, rate = pair
        array, rate = np.asarray(samples), int(rate)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise DataError(
            "speech must be a pair of an array of samples and a rate in Hz",
            code="invalid_audio",
        ) from error
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2):
        raise DataError(
            "speech samples must be (S,) or (S, channels) numbers, "
            f"got {array.shape} {array.dtype}",
            code="invalid_audio",
        )
    _check(len(array), rate, array.shape[1] if array.ndim == 2 else 1, max_seconds)
    with np.errstate(over="ignore"):
        return array.astype(np.float32), rate


def _check(num_samples: int, rate: int, channels: int, max_seconds: float) -> None:
    if not 1000 <= rate <= 192_000:
        raise DataError(
            f"speech has a sample rate of {rate} Hz; 1 to 192 kHz are read",
            code="invalid_audio",
        )
    if not 1 <= channels <= 2:
        raise DataError(
            f"speech has {channels} channels; mono and stereo are read", code="invalid_audio"
        )
    if num_samples == 0:
        raise DataError("speech has no samples", code="invalid_audio")
    if num_samples > max_seconds * rate:
        raise DataError(
            f"speech is {num_samples / rate:.1f} s long, the limit is {max_seconds:g} s",
            code="audio_too_long",
        )


def _read(source: str | Path | bytes, max_seconds: float) -> tuple[np.ndarray, int]:
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"speech {source} cannot be read: {cause}", code="invalid_audio") from error
    with stream:
        head = stream.read(4)
        stream.seek(0)
        if not head:
            raise DataError("speech is an empty file", code="invalid_audio")
        if not head.startswith(MAGIC):
            raise DataError("speech is not WAV, FLAC, OGG or MP3", code="invalid_audio")
        is_cut = {b"RIFF": _is_cut_wav, b"OggS": _is_cut_ogg}.get(head)
        if is_cut and is_cut(stream):
            raise DataError("speech is truncated", code="invalid_audio")
        stream.seek(0)
        try:
            with _Reader(stream) as file:
                return _samples(file, max_seconds), file.samplerate
        except soundfile.LibsndfileError:
            raise DataError("speech is truncated or corrupt", code="invalid_audio") from None


def _samples(file: soundfile.SoundFile, max_seconds: float) -> np.ndarray:
    if not file.subtype.startswith(SUBTYPES):
        raise DataError(
            f"speech is encoded as {file.subtype}, which is not read", code="invalid_audio"
        )
    rate = file.samplerate
    unknown = file.frames == UNKNOWN_LENGTH
    most = int(max_seconds * rate) if unknown else file.frames
    # a header that claims too much must not decide how much memory is taken
    _check(most, rate, file.channels, max_seconds)
    samples = file.read(most + unknown, dtype="float32")
    if unknown and len(samples) > most:
        raise DataError(
            f"speech is longer than the limit of {max_seconds:g} s", code="audio_too_long"
        )
    if not unknown and len(samples) < most:
        raise DataError("speech is truncated", code="invalid_audio")
    _check(len(samples), rate, file.channels, max_seconds)
    return samples
