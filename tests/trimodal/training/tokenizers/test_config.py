from pathlib import Path

import pytest

from trimodal.errors import ConfigError
from trimodal.training.optimizer import learning_rate
from trimodal.training.tokenizers.config import (
    TRAININGS,
    ScheduleConfig,
    SpeechTokenizerTraining,
    load_training,
)


@pytest.mark.parametrize("what", TRAININGS)
def test_defaults_can_be_trained_and_overridden(what: str) -> None:
    config = load_training(what, None, ["training.max_steps=7", "seed=3"])
    assert type(config) is TRAININGS[what]
    assert (config.training.max_steps, config.seed) == (7, 3)


def test_a_file_is_read_and_overridden(tmp_path: Path) -> None:
    path = tmp_path / "speech.yaml"
    path.write_text("crop_frames: 50\ntokenizer: {levels: [3, 3], speech_input: {num_mels: 20}}\n")
    config = load_training("speech", path, ["tokenizer.width=16"])
    assert isinstance(config, SpeechTokenizerTraining)
    assert (config.crop_frames, config.tokenizer.width, config.tokenizer.num_codes) == (50, 16, 9)
    assert config.tokenizer.speech_input.num_mels == 20


@pytest.mark.parametrize(
    ("what", "item", "message"),
    [
        ("vision", "tokenizer.stride=2", "tokenizer.stride: no such key, did you mean strides?"),
        ("vision", "crop=8", "crop: 8 is less than the 16 pixels of a code"),
        ("vision", "vision_input.patch_size=6", "vision_input.patch_size: 6 is no multiple of"),
        ("vision", "tokenizer.levels=[1]", "tokenizer.levels"),
        ("speech", "crop_frames=3", "crop_frames: 3 are less than the 4 frames of a code"),
        ("vocoder", "training.min_learning_rate=1", "min_learning_rate: 1 is above learning_rate"),
        ("vocoder", "tokenised=0.5", "tokenised: no such key, did you mean tokenized?"),
        ("vocoder", "crop_frames", "'crop_frames' is not of the form key=value"),
    ],
)
def test_mistakes_name_the_key(what: str, item: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_training(what, None, [item])
    assert message in str(caught.value)


def test_the_schedule_is_that_of_the_model() -> None:
    schedule = ScheduleConfig(max_steps=10, learning_rate=1.0, warmup_steps=2).as_training()
    rates = [learning_rate(step, schedule) for step in range(10)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
