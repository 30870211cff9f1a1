import dataclasses
from pathlib import Path

import pytest
import torch

from trimodal.config import SpeechAugmentConfig
from trimodal.data import read_manifest
from trimodal.training.tokenizers.config import SpeechTokenizerTraining
from trimodal.training.tokenizers.speech import SpeechTask


def test_a_batch_is_padded_and_only_what_is_there_counts(
    manifest: Path, speech_config: SpeechTokenizerTraining
) -> None:
    config = dataclasses.replace(speech_config, crop_frames=35)
    task = SpeechTask(config, read_manifest(manifest))
    [outcome] = task.outcomes(0)
    frames = [task.frames(i, index) for i, index in enumerate(task.files.indices(0, 4, 0))]
    lengths = [len(f) for f in frames]
    assert max(lengths) == 35
    assert min(lengths) < 35
    assert outcome.real.shape == (4, 1, 36, 16)
    assert outcome.codes is not None
    assert len(outcome.codes) == sum(-(-n // 4) for n in lengths)
    for i, length in enumerate(lengths):
        assert torch.equal(outcome.real[i, 0, :length], frames[i])
        assert not outcome.real[i, 0, length:].any()
        assert not outcome.fake[i, 0, length:].any()
    assert outcome.share == 1
    assert outcome.loss.requires_grad


def test_crops_are_pure_functions_of_their_keys(
    manifest: Path, speech_config: SpeechTokenizerTraining
) -> None:
    augment = SpeechAugmentConfig(stretch=0.2, noise=0.5)
    config = dataclasses.replace(speech_config, crop_frames=12, augment=augment)
    task = SpeechTask(config, read_manifest(manifest))
    assert torch.equal(task.frames(3, 0), task.frames(3, 0))
    assert not torch.equal(task.frames(3, 0), task.frames(4, 0))
    assert task.frames(3, 0).shape == (12, 16)


def test_statistics_are_those_that_normalising_removes(
    manifest: Path, speech_config: SpeechTokenizerTraining
) -> None:
    task = SpeechTask(speech_config, read_manifest(manifest))
    waveforms = [task.processor.decode(path) for path, _ in task.files.files]
    logs = [task.processor.log_mel(waveform) for waveform in waveforms]
    mean, std = task.statistics()
    assert mean == pytest.approx(sum(float(x.mean()) for x in logs) / len(logs), abs=1e-3)
    assert std == pytest.approx(sum(float(x.std()) for x in logs) / len(logs), abs=1e-3)
    stored = task.complete().config
    assert (stored.mean, stored.std) == (mean, std)
