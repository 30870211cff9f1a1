"""Pictures and speech as the bytes of files.

data = picture_bytes(pixels_HW3, "PNG")
"""

import io

import numpy as np
from PIL import Image

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""The formats of pictures, by suffix."""
SOUNDS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
"""The formats of speech, by suffix."""


def picture_bytes(pixels: np.ndarray, format: str = "PNG") -> bytes:  # noqa: A002 - Pillow's word
    """An (H, W, 3) uint8 picture in one of the formats of `PICTURES`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **({"lossless": True} if format == "WEBP" else {}))
    return buffer.getvalue()


def speech_bytes(samples: np.ndarray, rate: int, format: str = "WAV") -> bytes:  # noqa: A002
    """(S,) float32 samples in [-1, 1] in a format of `SOUNDS`; lossless ones have 16 bits."""
    import soundfile

    buffer = io.BytesIO()
    subtype = "PCM_16" if format in ("WAV", "FLAC") else None
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()
