"""A recording as a waveform of the model's rate.

waveform_S = waveform(Path("word.flac"), max_seconds=60.0, target=16_000)
"""

import functools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import Tensor

from trimodal.media import recording

FILTER_SIZE = 600_000


def waveform(
    source: str | Path | bytes | tuple[np.ndarray, int], max_seconds: float, target: int
) -> Tensor:
    """What `trimodal.media.recording.read` takes, as a mono waveform (S,) at `target` Hz.

    Raises:
        DataError: see there.
    """
    samples, rate = recording.read(source, max_seconds)
    mono = torch.from_numpy(samples if samples.ndim == 1 else samples.mean(axis=1))
    return _resampler(rate, target)(mono)


@functools.lru_cache(maxsize=16)
def _resampler(source: int, target: int) -> torchaudio.transforms.Resample:
    # the filter has about as many numbers as the terms of the ratio have as a product: gigabytes
    # for 47,999 to 16,000 Hz; common rates are exact, the pitch of others is right within 0.13 %
    largest = math.isqrt(FILTER_SIZE * target // source)
    ratio = Fraction(source, target).limit_denominator(largest)
    return torchaudio.transforms.Resample(ratio.numerator, ratio.denominator)
