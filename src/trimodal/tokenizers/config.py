"""The shapes of the learnt tokenizers and the vocoder; saved with their weights.

config = parse(VisionTokenizerConfig, {"levels": [8, 6, 5], "strides": [2, 2]}, "")
"""

import math
from dataclasses import dataclass, field
from typing import Annotated

from trimodal.config import SpeechInputConfig
from trimodal.errors import ConfigError
from trimodal.schema import Bounds, Positive

MOST_CODES = 2**20

Level = Annotated[int, Bounds(2, 1024)]
Stride = Annotated[int, Bounds(1, 64)]
Width = Annotated[int, Bounds(1, 8192)]
Depth = Annotated[int, Bounds(0, 100)]
Kernel = Annotated[int, Bounds(1, 63)]


def _check_levels(levels: tuple[int, ...]) -> None:
    if not levels:
        raise ConfigError("levels: names no level")
    if math.prod(levels) > MOST_CODES:
        raise ConfigError(f"levels: {math.prod(levels)} codes are more than {MOST_CODES}")


def _check_shape(strides: tuple[int, ...], kernel: int) -> None:
    if not strides or len(strides) > 16:
        raise ConfigError(f"strides: needs 1 to 16 of them, got {len(strides)}")
    if kernel % 2 == 0:
        raise ConfigError(f"kernel: must be odd, got {kernel}")


@dataclass(frozen=True, kw_only=True)
class VisionTokenizerConfig:
    """A convolutional FSQ autoencoder of pictures."""

    levels: tuple[Level, ...] = (8, 5, 5, 5)
    """Of each channel of the quantiser; their product is the number of codes."""
    strides: tuple[Stride, ...] = (2, 2, 2, 2)
    """Pixels a side of a code, as factors from the picture to the codes."""
    width: Width = 128
    depth: Depth = 2
    """Residual blocks after each stride."""
    kernel: Kernel = 3

    def __post_init__(self) -> None:
        _check_levels(self.levels)
        _check_shape(self.strides, self.kernel)

    @property
    def stride(self) -> int:
        """Pixels a side of a code."""
        return math.prod(self.strides)

    @property
    def num_codes(self) -> int:
        """How many different codes there are."""
        return math.prod(self.levels)


@dataclass(frozen=True, kw_only=True)
class SpeechTokenizerConfig:
    """A convolutional FSQ autoencoder of normalised log-mel frames."""

    levels: tuple[Level, ...] = (8, 5, 5, 5)
    strides: tuple[Stride, ...] = (2, 2)
    """Frames a code, as factors from the frames to the codes."""
    width: Width = 256
    depth: Depth = 2
    """Residual blocks after each stride."""
    kernel: Kernel = 5
    speech_input: SpeechInputConfig = field(default_factory=SpeechInputConfig)
    """How the frames were made."""
    mean: float = -9.0
    """Of the log-mel frames of the corpus before they are normalised; measured in training."""
    std: Positive = 3.0
    """Likewise, the mean over utterances of the standard deviation in each."""

    def __post_init__(self) -> None:
        _check_levels(self.levels)
        _check_shape(self.strides, self.kernel)

    @property
    def stride(self) -> int:
        """Frames a code."""
        return math.prod(self.strides)

    @property
    def num_codes(self) -> int:
        """How many different codes there are."""
        return math.prod(self.levels)


@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    """Normalised log-mel frames to a waveform."""

    width: Width = 256
    depth: Depth = 8
    """ConvNeXt blocks."""
    mlp_ratio: Annotated[int, Bounds(1, 16)] = 3
    kernel: Kernel = 7
    rms: Annotated[float, Bounds(0, 1, above=True)] = 0.1
    """Loudness of what it gives, because normalised frames carry none."""
    speech_input: SpeechInputConfig = field(default_factory=SpeechInputConfig)

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ConfigError(f"kernel: must be odd, got {self.kernel}")
