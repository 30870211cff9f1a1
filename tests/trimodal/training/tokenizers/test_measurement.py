from pathlib import Path

import pytest

from trimodal.data import read_manifest
from trimodal.errors import ConfigError, StorageError
from trimodal.tokenizers import SpeechTokenizer, VisionTokenizer, Vocoder
from trimodal.training.tokenizers.config import (
    SpeechTokenizerTraining,
    VisionTokenizerTraining,
    VocoderTraining,
)
from trimodal.training.tokenizers.measurement import measure, measure_vision


def test_each_kind_has_its_figures(
    tmp_path: Path,
    manifest: Path,
    vision_config: VisionTokenizerTraining,
    speech_config: SpeechTokenizerTraining,
    vocoder_config: VocoderTraining,
) -> None:
    vision = VisionTokenizer(vision_config.tokenizer)
    vision.save(tmp_path / "vision")
    SpeechTokenizer(speech_config.tokenizer).save(tmp_path / "speech")
    Vocoder(vocoder_config.vocoder).save(tmp_path / "vocoder")
    seen = measure(tmp_path / "vision", [manifest])
    assert list(seen) == ["psnr", "usage", "perplexity"]
    assert 0 < seen["usage"] <= 1 <= seen["perplexity"] <= 60
    assert seen == measure_vision(vision, read_manifest(manifest))
    heard = measure(tmp_path / "speech", [manifest])
    assert list(heard) == ["error", "usage", "perplexity"]
    assert 0.1 < heard["error"] < 3  # of frames of variance 1
    sound = measure(tmp_path / "vocoder", [manifest], tmp_path / "speech")
    assert list(sound) == ["distortion", "griffin_lim"]
    assert all(0 < value < 100 for value in sound.values())
    with pytest.raises(ConfigError, match="--tokenizer: a vocoder is measured on"):
        measure(tmp_path / "vocoder", [manifest])


def test_a_folder_of_nothing_is_refused(tmp_path: Path, manifest: Path) -> None:
    with pytest.raises(StorageError, match="is not a tokenizer or vocoder"):
        measure(tmp_path, [manifest])
