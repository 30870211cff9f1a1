"""A recording as samples: WAV, FLAC, OGG or MP3, read under limits.

samples, rate = read(Path("word.flac"), max_seconds=60.0)
"""

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from trimodal.errors import DataError

# layer III frames of MPEG 1, 2 and 2.5 (8 to 12 kHz), with and without a checksum
MPEG = tuple(bytes([0xFF, version | check]) for version in (0xFA, 0xF2, 0xE2) for check in (0, 1))
MAGIC = (b"RIFF", b"fLaC", b"OggS", b"ID3", *MPEG)
SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "VORBIS", "OPUS", "MPEG_LAYER_III")
FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")
"""What libsndfile may find a file to be, whose own guess goes beyond the first bytes."""
WAV_ENCODINGS = {2: "MS_ADPCM", 6: "ALAW", 7: "ULAW", 17: "IMA_ADPCM", 49: "GSM610"}
"""Of those that are not read, the names that libsndfile gives them."""
WAV_SAMPLES = (1, 3)
"""Whole numbers and floats."""
WAV_EXTENSIBLE = 0xFFFE
LOUDEST = 1e12
MOST_CHUNKS = 100
"""Of a WAV file before its samples."""
LARGEST_PAGE = 65_307
UNKNOWN_LENGTH = 2**63 - 1


def read(
    source: str | Path | bytes | tuple[np.ndarray, int], max_seconds: float
) -> tuple[np.ndarray, int]:
    """A path, encoded bytes or (samples, rate) as float32 samples (S,) or (S, channels) in [-1, 1].

    The samples of a pair may be of any type of numbers; the rate, in Hz, is that of the recording.

    Raises:
        DataError: not WAV, FLAC, OGG or MP3; truncated, broken, empty, not finite or over the
            limits: `max_seconds`, 1 to 192 kHz, two channels.
    """
    if isinstance(source, tuple):
        samples, rate = _from_pair(source, max_seconds)
    elif isinstance(source, str | Path | bytes):
        samples, rate = _from_file(source, max_seconds)
    else:
        raise DataError(
            f"speech must be a path, bytes or (samples, rate), got {type(source).__name__}",
            code="invalid_audio",
        )
    # also false where one is not a number; the square of a louder one leaves fp32
    if not (samples.min() > -LOUDEST and samples.max() < LOUDEST):
        raise DataError(
            f"speech has samples that are not finite, or not below {LOUDEST:g}",
            code="invalid_audio",
        )
    return samples, rate


class _Reader(soundfile.SoundFile):
    """Reads from start to end; the seek that follows a read fails in a FLAC file from a pipe."""

    def seekable(self) -> bool:
        return False


def _wav_fault(stream: BinaryIO) -> str | None:
    """What is wrong with the headers of a WAV file, before libsndfile sees it.

    Of a file that is shorter than its headers say it reads what there is, and some encodings it
    begins to decode while it opens the file. A header written into a pipe says 0 or the largest
    size, for want of a better knowledge.
    """
    size = stream.seek(0, io.SEEK_END)
    position = 0
    for _ in range(MOST_CHUNKS):
        stream.seek(position)
        header = stream.read(8)
        name, stated = header[:4], int.from_bytes(header[4:], "little")
        if name in (b"RIFF", b"data") and 0 < stated < 0xFFFFFFF0 and size < position + 8 + stated:
            return "is truncated"
        if name == b"fmt " and (encoding := _unread(stream.read(26))) is not None:
            return f"is encoded as {encoding}, which is not read"
        if name == b"data" or len(header) < 8:
            return None
        position += 12 if name == b"RIFF" else 8 + stated + stated % 2
    return "is truncated or corrupt"


def _unread(layout: bytes) -> str | None:
    """The encoding that the content of a `fmt ` chunk names, if it is none that is read."""
    tag = int.from_bytes(layout[:2], "little")
    if tag == WAV_EXTENSIBLE:
        tag = int.from_bytes(layout[24:26], "little")
    return None if tag in WAV_SAMPLES else WAV_ENCODINGS.get(tag, f"WAV format {tag}")


def _ogg_fault(stream: BinaryIO) -> str | None:
    """Whether the last page of an OGG file is not whole or not marked as the last."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - LARGEST_PAGE))
    tail = stream.read()
    page = tail[tail.rfind(b"OggS") :]
    is_whole = len(page) >= 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    return None if is_whole and page[5] & 4 else "is truncated"


def _id3_fault(stream: BinaryIO) -> str | None:
    """What follows a tag decides what a file is; libsndfile would take anything there."""
    head = stream.read(10)
    if len(head) < 10:
        return "is truncated"
    size = 10 + sum((head[9 - i] & 0x7F) << 7 * i for i in range(4))
    stream.seek(size)
    is_known = stream.read(4).startswith((b"fLaC", *MPEG))
    return None if is_known else "is not WAV, FLAC, OGG or MP3"


FAULTS = {b"RIFF": _wav_fault, b"OggS": _ogg_fault, b"ID3": _id3_fault}


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


def _from_file(source: str | Path | bytes, max_seconds: float) -> tuple[np.ndarray, int]:
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"speech {source} cannot be read: {cause}", code="invalid_audio") from error
    with stream:
        head = stream.read(12)
        if not head:
            raise DataError("speech is an empty file", code="invalid_audio")
        if not head.startswith(MAGIC) or (head[:4] == b"RIFF" and head[8:] != b"WAVE"):
            raise DataError("speech is not WAV, FLAC, OGG or MP3", code="invalid_audio")
        for magic, fault_of in FAULTS.items():
            stream.seek(0)
            if head.startswith(magic) and (fault := fault_of(stream)) is not None:
                raise DataError(f"speech {fault}", code="invalid_audio")
        stream.seek(0)
        try:
            with _Reader(stream) as file:
                return _samples(file, max_seconds), file.samplerate
        except soundfile.LibsndfileError:
            raise DataError("speech is truncated or corrupt", code="invalid_audio") from None


def _samples(file: soundfile.SoundFile, max_seconds: float) -> np.ndarray:
    if file.format not in FORMATS:
        raise DataError("speech is not WAV, FLAC, OGG or MP3", code="invalid_audio")
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
