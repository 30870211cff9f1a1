"""Speech as the bytes of files, in the formats of OpenAI's protocol.

data, media_type = encode(samples, 16_000, "mp3")
"""

import io
import struct
from typing import NamedTuple

import numpy as np

from trimodal_serving.errors import ServingError

VOICE = "default"
"""The model speaks as its corpus does; nothing chooses among voices."""


class _Format(NamedTuple):
    media_type: str
    container: str
    codec: str


FORMATS = {
    "mp3": _Format("audio/mpeg", "MP3", "MPEG_LAYER_III"),
    "wav": _Format("audio/wav", "WAV", "PCM_16"),
    "flac": _Format("audio/flac", "FLAC", "PCM_16"),
    "ogg": _Format("audio/ogg", "OGG", "VORBIS"),
    "opus": _Format("audio/ogg; codecs=opus", "OGG", "OPUS"),
    "pcm": _Format("audio/pcm", "RAW", "PCM_16"),
}
GROWING = ("pcm", "wav")
"""Formats of which the beginning can be sent before the end is there. The heads of MP3 and FLAC are
written last, and a page of Ogg takes about a second."""


def encode(samples: np.ndarray, rate: int, name: str) -> tuple[bytes, str]:
    """(S,) float32 samples in [-1, 1] as a file of a format, and its media type.

    PCM is 16 bits, little-endian, one channel, at `rate`, which its media type says.
    """
    import soundfile

    _, container, codec = FORMATS[name]
    buffer = io.BytesIO()
    endian = "LITTLE" if container == "RAW" else None
    soundfile.write(buffer, samples, rate, format=container, subtype=codec, endian=endian)
    return buffer.getvalue(), media_type(rate, name)


def media_type(rate: int, name: str) -> str:
    """What files of a format are; that of PCM says the rate, which nothing in the file does."""
    kind, container, _ = FORMATS[name]
    return kind + (f";rate={rate};channels=1" if container == "RAW" else "")


def beginning(rate: int, name: str) -> bytes:
    """What stands before the samples of a format in `GROWING`, which follow as `pcm`.

    Nobody knows how many, so sizes are the largest that there are; other programs do the same.
    """
    if name == "pcm":
        return b""
    unknown, head = 2**32 - 1, struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        struct.pack("<4sI8s", b"RIFF", unknown, b"WAVEfmt ")
        + head
        + struct.pack("<4sI", b"data", unknown)
    )


def check_format(name: object, known: dict[str, str], param: str) -> str:
    """The entry of `FORMATS` for what a client calls a format.

    Raises:
        ServingError: it is none of `known`.
    """
    if not isinstance(name, str) or name not in known:
        message = f"`{param}` must be one of {', '.join(known)}"
        raise ServingError(400, "unsupported_format", message, param=param)
    return known[name]


def check_voice(voice: object, param: str) -> None:
    """Return if the voice is ours, under its name or as an object with its `id`.

    Raises:
        ServingError: it is another.
    """
    if voice not in (VOICE, {"id": VOICE}):
        message = f"`{param}` must be `{VOICE}`, the only voice of this model"
        raise ServingError(400, "unsupported_voice", message, param=param)
