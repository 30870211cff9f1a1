"""Speech at any rate, mono or stereo, to log-mel frames.

medium = processor.medium(processor.frames(processor.decode("word.flac")))
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

from trimodal.batch import Medium, Modality
from trimodal.config import SpeechInputConfig
from trimodal.errors import DataError
from trimodal.tokenizers.mel import mel_spectrogram

SpeechSource = str | Path | bytes | tuple[np.ndarray, int]
# layer III frames of MPEG 1, 2 and 2.5 (8 to 12 kHz), with and without a checksum
MPEG = tuple(bytes([0xFF, version | check]) for version in (0xFA, 0xF2, 0xE2) for check in (0, 1))
MAGIC = (b"RIFF", b"fLaC", b"OggS", b"ID3", *MPEG)
SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "VORBIS", "OPUS", "MPEG_LAYER_III")
LOG_FLOOR = 1e-6
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


class SpeechProcessor:
    """Decodes under limits, resamples, and computes normalised log-mel frames."""

    def __init__(self, config: SpeechInputConfig) -> None:
        self.config = config
        self._mel = mel_spectrogram(config)
        self.hop = int(self._mel.hop_length)
        self.num_fft = int(self._mel.n_fft)

    def decode(self, source: SpeechSource) -> Tensor:
        """A path, encoded bytes or (samples, rate) as a mono waveform (S,) at `sample_rate`.

        The samples of a pair are (S,) or (S, channels) float in [-1, 1].

        Raises:
            DataError: not WAV, FLAC, OGG or MP3; truncated, broken, empty, not finite or over the
                limits: `max_seconds`, 1 to 192 kHz, two channels.
        """
        if isinstance(source, tuple):
            samples, rate = self._from_pair(source)
        elif isinstance(source, str | Path | bytes):
            samples, rate = self._read(source)
        else:
            raise DataError(
                f"speech must be a path, bytes or (samples, rate), got {type(source).__name__}",
                code="invalid_audio",
            )
        # also false where one is not a number; the square of a louder one leaves fp32
        if not (samples.min() > -LOUDEST and samples.max() < LOUDEST):
            raise DataError("speech has samples that are not finite numbers", code="invalid_audio")
        waveform = torch.from_numpy(samples if samples.ndim == 1 else samples.mean(axis=1))
        return _resampler(rate, self.config.sample_rate)(waveform)

    def _from_pair(self, pair: tuple[np.ndarray, int]) -> tuple[np.ndarray, int]:
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
        self._check(len(array), rate, array.shape[1] if array.ndim == 2 else 1)
        with np.errstate(over="ignore"):
            return array.astype(np.float32), rate

    def _check(self, num_samples: int, rate: int, channels: int) -> None:
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
        if num_samples > self.config.max_seconds * rate:
            raise DataError(
                f"speech is {num_samples / rate:.1f} s long, the limit is "
                f"{self.config.max_seconds:g} s",
                code="audio_too_long",
            )

    def _read(self, source: str | Path | bytes) -> tuple[np.ndarray, int]:
        try:
            stream = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            cause = getattr(error, "strerror", None) or error
            raise DataError(
                f"speech {source} cannot be read: {cause}", code="invalid_audio"
            ) from error
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
                    return self._samples(file), file.samplerate
            except soundfile.LibsndfileError:
                raise DataError("speech is truncated or corrupt", code="invalid_audio") from None

    def _samples(self, file: soundfile.SoundFile) -> np.ndarray:
        if not file.subtype.startswith(SUBTYPES):
            raise DataError(
                f"speech is encoded as {file.subtype}, which is not read", code="invalid_audio"
            )
        rate, limit = file.samplerate, self.config.max_seconds
        unknown = file.frames == UNKNOWN_LENGTH
        most = int(limit * rate) if unknown else file.frames
        # a header that claims too much must not decide how much memory is taken
        self._check(most, rate, file.channels)
        samples = file.read(most + unknown, dtype="float32")
        if unknown and len(samples) > most:
            raise DataError(
                f"speech is longer than the limit of {limit:g} s", code="audio_too_long"
            )
        if not unknown and len(samples) < most:
            raise DataError("speech is truncated", code="invalid_audio")
        self._check(len(samples), rate, file.channels)
        return samples

    def frames(self, waveform: Tensor) -> Tensor:
        """Log-mel frames (F, M) float32, shifted and scaled to mean 0 and variance 1 in all.

        One mean and one scale for the whole utterance remove its loudness and keep its spectrum.
        """
        frames = self.log_mel(waveform)
        return (frames - frames.mean()) / frames.std().clamp_min(1e-3)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Log-mel frames (F, M) float32 as they are, before `frames` normalises them."""
        least = self.num_fft // 2 + 1  # reflection at the ends needs this many samples
        if waveform.numel() < least:
            waveform = torch.nn.functional.pad(waveform, (0, least - waveform.numel()))
        with torch.no_grad():
            return self._mel(waveform).clamp_min(LOG_FLOOR * 1e-4).log().T

    def medium(self, frames: Tensor) -> Medium:
        """Pad (F, M) frames with zeros, their mean, to whole tokens."""
        stride = self.config.stride
        missing = -len(frames) % stride
        if missing:
            frames = torch.nn.functional.pad(frames, (0, 0, 0, missing))
        tokens = len(frames) // stride
        return Medium(Modality.SPEECH, frames.contiguous(), tokens, (tokens, 1))
