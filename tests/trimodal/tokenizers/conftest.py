import pytest
import torch

from trimodal.config import SpeechInputConfig
from trimodal.tokenizers import (
    SpeechTokenizer,
    SpeechTokenizerConfig,
    VisionTokenizer,
    VisionTokenizerConfig,
    Vocoder,
    VocoderConfig,
)

SPEECH_INPUT = SpeechInputConfig(num_mels=16)


def _grown(module: torch.nn.Module) -> None:
    """Weights as large as after training: new residual blocks would do nothing."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)


@pytest.fixture
def vision() -> VisionTokenizer:
    """4 pixels a side of a code, 60 codes."""
    config = VisionTokenizerConfig(levels=(5, 4, 3), strides=(2, 2), width=16, depth=1)
    module = VisionTokenizer(config).eval()
    _grown(module)
    return module


@pytest.fixture
def speech() -> SpeechTokenizer:
    """4 frames a code, 60 codes."""
    config = SpeechTokenizerConfig(
        levels=(5, 4, 3), strides=(2, 2), width=16, depth=1, speech_input=SPEECH_INPUT
    )
    module = SpeechTokenizer(config).eval()
    _grown(module)
    return module


@pytest.fixture
def vocoder() -> Vocoder:
    """16 bands to 16 kHz."""
    module = Vocoder(VocoderConfig(width=16, depth=2, speech_input=SPEECH_INPUT)).eval()
    _grown(module)
    return module
