from pathlib import Path

import pytest

from trimodal.config import SpeechInputConfig, VisionInputConfig
from trimodal.testing import write_tiny_manifest
from trimodal.tokenizers import SpeechTokenizerConfig, VisionTokenizerConfig, VocoderConfig
from trimodal.training.tokenizers.config import (
    AdversarialConfig,
    ScheduleConfig,
    SpeechTokenizerTraining,
    VisionTokenizerTraining,
    VocoderTraining,
)

SPEECH_INPUT = SpeechInputConfig(num_mels=16, max_seconds=4.0)
SCHEDULE = ScheduleConfig(
    max_steps=6, batch_size=4, learning_rate=3e-3, warmup_steps=2, checkpoint_every=2
)
ADVERSARIAL = AdversarialConfig(weight=0.1, start_step=1, width=4)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """16 rows of pictures of many sizes and short tones; some lack one or the other."""
    return write_tiny_manifest(tmp_path / "data")


@pytest.fixture
def vision_config() -> VisionTokenizerTraining:
    """Sixty codes of 4 x 4 pixels, at most 8 pixels a side."""
    return VisionTokenizerTraining(
        tokenizer=VisionTokenizerConfig(levels=(5, 4, 3), strides=(2, 2), width=8, depth=1),
        vision_input=VisionInputConfig(patch_size=4),
        crop=8,
        adversarial=ADVERSARIAL,
        training=SCHEDULE,
    )


@pytest.fixture
def speech_config() -> SpeechTokenizerTraining:
    """Sixty codes of 4 frames, at most 24 frames."""
    return SpeechTokenizerTraining(
        tokenizer=SpeechTokenizerConfig(
            levels=(5, 4, 3), strides=(2, 2), width=8, depth=1, speech_input=SPEECH_INPUT
        ),
        crop_frames=24,
        adversarial=ADVERSARIAL,
        training=SCHEDULE,
    )


@pytest.fixture
def vocoder_config() -> VocoderTraining:
    """At most 16 frames."""
    return VocoderTraining(
        vocoder=VocoderConfig(width=8, depth=1, speech_input=SPEECH_INPUT),
        crop_frames=16,
        adversarial=ADVERSARIAL,
        training=SCHEDULE,
    )
